#!/bin/sh
# Secrets by file: /run/secrets/cohort_sync_secret_key becomes COHORT_SYNC_SECRET_KEY, and so on. A variable
# that is set already wins. Then cohort-sync with the arguments given.
set -eu
for file in "${SECRETS_DIR:-/run/secrets}"/cohort_sync_*; do
    [ -f "$file" ] || continue
    name=$(basename "$file" | tr '[:lower:]' '[:upper:]')
    case $name in *[!A-Z0-9_]*) continue ;; esac
    if eval "[ -z \"\${$name:-}\" ]"; then
        value=$(cat "$file")
        export "$name=$value"
    fi
done
exec cohort-sync "$@"
