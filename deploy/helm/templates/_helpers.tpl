{{- define "cohort-sync.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}
{{- $name = printf "%s-%s" $name .Chart.Name -}}
{{- end -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "cohort-sync.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cohort-sync.labels" -}}
{{ include "cohort-sync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cohort-sync.secret" -}}
{{- required "existingSecret has to name a Secret with the database's and the queue's URL and the secret key: see deploy/README.md" .Values.existingSecret -}}
{{- end -}}

{{/* Live: it goes round. Ready: its servers answer as well. One that waits for a server is never restarted. */}}
{{- define "cohort-sync.execProbes" -}}
startupProbe:
  exec: {command: [cohort-sync-entrypoint, health, {{ . }}, --live]}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 24
livenessProbe:
  exec: {command: [cohort-sync-entrypoint, health, {{ . }}, --live]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
readinessProbe:
  exec: {command: [cohort-sync-entrypoint, health, {{ . }}, --ready]}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 2
{{- end -}}

{{- define "cohort-sync.httpProbes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 24
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 2
{{- end -}}

{{/*
The pod of one process. A dict: root, name, args, resources; and where it has them: env, port, probes ("exec" or
"http"), secrets (further keys that must be there), optionalSecrets, workSpace, grace (seconds), restartPolicy.
*/}}
{{- define "cohort-sync.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "cohort-sync.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  {{- with $root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ $root.Values.serviceAccountName }}
  automountServiceAccountToken: false
  # Else a service named cohort-sync-flower would set COHORT_SYNC_FLOWER_PORT to an address.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace | default 30 }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "cohort-sync.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .name }}
  containers:
    - name: {{ .name }}
      image: {{ printf "%s:%s" $root.Values.image.repository ($root.Values.image.tag | default $root.Chart.AppVersion) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        # A directory of the process's own within the volume, which belongs to the node's root.
        - {name: COHORT_SYNC_DATA_DIR, value: /var/lib/cohort-sync/data}
        - {name: COHORT_SYNC_LOG_FORMAT, value: json}
        {{- range $name, $value := .env }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
        {{- range $name, $value := $root.Values.settings }}
        - {name: COHORT_SYNC_{{ $name }}, value: {{ $value | quote }}}
        {{- end }}
      {{- with .port }}
      ports:
        - {name: http, containerPort: {{ . }}}
      {{- end }}
      {{- if eq (.probes | default "") "exec" }}
      {{- include "cohort-sync.execProbes" .name | nindent 6 }}
      {{- else if eq (.probes | default "") "http" }}
      {{- include "cohort-sync.httpProbes" .name | nindent 6 }}
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: data, mountPath: /var/lib/cohort-sync}
        - {name: tmp, mountPath: /tmp}
        - {name: secrets, mountPath: /run/secrets, readOnly: true}
  volumes:
    - name: data
      emptyDir: {sizeLimit: {{ .workSpace | default "256Mi" }}}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    # The image's entrypoint makes a setting of each file.
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          - secret:
              name: {{ include "cohort-sync.secret" $root }}
              items:
                {{- range concat (list "cohort_sync_database_url" "cohort_sync_redis_url" "cohort_sync_secret_key") (.secrets | default list) }}
                - {key: {{ . }}, path: {{ . }}}
                {{- end }}
          {{- range .optionalSecrets | default list }}
          - secret:
              name: {{ include "cohort-sync.secret" $root }}
              optional: true
              items:
                - {key: {{ . }}, path: {{ . }}}
          {{- end }}
{{- end -}}

{{/* A Deployment. As for the pod, and: replicas (none: an autoscaler's), strategy. */}}
{{- define "cohort-sync.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "cohort-sync.fullname" .root }}-{{ .name }}
  labels:
    {{- include "cohort-sync.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  {{- with .replicas }}
  replicas: {{ . }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    {{- toYaml (.strategy | default (dict "type" "RollingUpdate" "rollingUpdate" (dict "maxUnavailable" 0 "maxSurge" 1))) | nindent 4 }}
  selector:
    matchLabels:
      {{- include "cohort-sync.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
  template:
    {{- include "cohort-sync.pod" . | nindent 4 }}
{{- end -}}

{{/* A Service of a process's port; `always`: also while the process is not ready. */}}
{{- define "cohort-sync.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "cohort-sync.fullname" .root }}-{{ .name }}
  labels:
    {{- include "cohort-sync.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  selector:
    {{- include "cohort-sync.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  {{- if .always }}
  # Also while its servers are away: what it shows then is needed most.
  publishNotReadyAddresses: true
  {{- end }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http}
{{- end -}}
