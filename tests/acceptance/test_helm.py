"""The Helm chart: what it renders is right by Kubernetes' schemas, and works when it is started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import requests
import yaml
from cryptography.fernet import Fernet
from redis import Redis
from sqlalchemy import select

from config.settings import Settings
from models.database import Database
from models.tables import SyncRun
from models.types import RunState
from tests.contract.sandboxed import Sandbox
from tests.kubernetes.helm import CHART, Manifest, called, mistakes, rendered
from tests.kubernetes.pods import Pod
from tests.product import TIMING, Product, valkey_over_tcp
from tests.support import free_port, wait_until

GIVEN: Manifest = {"existingSecret": "cohort-sync"}
EVERYTHING: Manifest = {
    **GIVEN,
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"LEASE_SECONDS": "60", "LOG_LEVEL": "DEBUG"},
    "podAnnotations": {"note": "yes"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "worker": {"autoscaling": {"enabled": True, "metricLabels": {"job": "cohort-sync"}}},
    "receiver": {"enabled": True},
    "networkPolicy": {"receiverFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
}
LEAST: Manifest = {
    **GIVEN,
    "migration": {"enabled": False},
    "flower": {"enabled": False},
    "monitor": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
}


def of(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of that kind by what they are of."""
    found = [one for one in manifests if one["kind"] == kind]
    return {one["metadata"]["labels"].get("app.kubernetes.io/component", ""): one for one in found}


@pytest.mark.parametrize("values", [GIVEN, EVERYTHING, LEAST], ids=["given", "everything", "least"])
@pytest.mark.parametrize("release", ["cohort-sync", "a", "x" * 53])
def test_kubernetes_takes_what_is_rendered(values: Manifest, release: str) -> None:
    manifests = rendered(values, release)
    assert manifests
    for manifest in manifests:
        assert mistakes(manifest) == []
        assert len(manifest["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(names) == len(set(names))
    assert called("lint", CHART, values=values).returncode == 0


def test_the_schemas_refuse_what_kubernetes_would() -> None:
    worker = of(rendered(GIVEN), "Deployment")["worker"]
    worker["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["tymeoutSeconds"] = 1
    worker["spec"]["replicas"] = "two"
    assert len(mistakes(worker)) == 2


def test_a_process_for_everything_and_none_for_nothing() -> None:
    everything = rendered(EVERYTHING)
    roles = {"scheduler", "worker", "flower", "monitor", "receiver"}
    assert set(of(everything, "Deployment")) == roles
    assert set(of(rendered(GIVEN), "Deployment")) == roles - {"receiver"}
    assert set(of(rendered(LEAST), "Deployment")) == {"scheduler", "worker"}
    assert of(everything, "Deployment")["scheduler"]["spec"]["replicas"] == 2
    assert set(of(everything, "PodDisruptionBudget")) == {"scheduler", "worker", "receiver"}
    assert set(of(everything, "NetworkPolicy")) == {"", "flower", "monitor", "receiver", "migration"}
    assert {one["kind"] for one in rendered(LEAST)} == {"Deployment"}
    hooks = of(everything, "Job")["migration"]["metadata"]["annotations"]
    assert hooks["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_the_migration_is_let_out_before_it_starts() -> None:
    """It runs before the release's own policies exist, and a namespace may deny what no policy allows."""
    everything = rendered(EVERYTHING)
    job, policies = of(everything, "Job")["migration"], of(everything, "NetworkPolicy")
    mine, hook = policies["migration"], "helm.sh/hook"
    first, then = mine["metadata"]["annotations"], job["metadata"]["annotations"]
    assert first[hook] == then[hook]
    assert int(first[f"{hook}-weight"]) < int(then.get(f"{hook}-weight", 0))
    assert first[f"{hook}-delete-policy"] == then[f"{hook}-delete-policy"], "nothing of it is left"
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert mine["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert "app.kubernetes.io/component" in mine["spec"]["podSelector"]["matchLabels"], "no other pod's"
    assert mine["spec"]["egress"] == policies[""]["spec"]["egress"]
    without = {**EVERYTHING, "networkPolicy": {"enabled": False}}
    assert not of(rendered(without), "NetworkPolicy")
    without = {**EVERYTHING, "migration": {"enabled": False}}
    assert "migration" not in of(rendered(without), "NetworkPolicy")


def test_workers_are_scaled_by_a_metric_that_the_monitor_has() -> None:
    from monitor.definitions import UNCLAIMED

    everything = rendered(EVERYTHING)
    scaler = of(everything, "HorizontalPodAutoscaler")["worker"]["spec"]
    worker = of(everything, "Deployment")["worker"]
    assert scaler["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert "replicas" not in worker["spec"], "an upgrade would undo what the autoscaler did"
    [metric] = scaler["metrics"]
    assert metric["external"]["metric"]["name"] == UNCLAIMED.name
    assert not of(rendered(GIVEN), "HorizontalPodAutoscaler")


def test_every_pod_is_confined_and_probed() -> None:
    everything = rendered(EVERYTHING)
    templates = {
        name: one["spec"]["template"]
        for kind in ("Deployment", "Job")
        for name, one in of(everything, kind).items()
    }
    for name, template in templates.items():
        spec = template["spec"]
        [container] = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "its variables would be taken for settings"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= set(container["resources"])
        assert container["image"] == "cohort-sync:0.1.0"
        probes = {"startupProbe", "livenessProbe", "readinessProbe"}
        assert probes & set(container) == (set() if name == "migration" else probes)
        if name != "migration":
            assert not _asks_servers(container["livenessProbe"]), "a server that is away restarts nothing"
            assert not _asks_servers(container["startupProbe"])
            assert _asks_servers(container["readinessProbe"])


def test_metrics_are_there_while_the_servers_are_away() -> None:
    services = of(rendered(EVERYTHING), "Service")
    assert set(services) == {"flower", "monitor", "receiver"}
    assert services["monitor"]["spec"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in services["receiver"]["spec"], "its messages are sent again"


def _asks_servers(probe: Manifest) -> bool:
    asked = probe["exec"]["command"][-1] if "exec" in probe else probe["httpGet"]["path"]
    return {"--live": False, "/livez": False, "--ready": True, "/readyz": True}[asked]


def test_the_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    [version] = re.findall(
        r'^version = "(.+)"$', (CHART.parents[1] / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert chart["version"] == chart["appVersion"] == version


def test_the_values_know_every_setting_but_those_that_the_chart_gives() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    known = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    assert known == {name.upper() for name in Settings.model_fields} - {
        *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "FLOWER_PASSWORD", "NOTIFY_URLS"),  # the secret
        *("DATA_DIR", "LOG_FORMAT", "WORKER_CONCURRENCY"),
        *("FLOWER_ADDRESS", "FLOWER_PORT", "MONITOR_HOST", "MONITOR_PORT"),
    }


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "existingSecret has to name a Secret"),
        ({**GIVEN, "workers": {"replicas": 3}}, "workers"),
        ({**GIVEN, "scheduler": {"replicas": 0}}, "/scheduler/replicas"),
        ({**GIVEN, "settings": {"LEASE_SECOND": "60"}}, "LEASE_SECOND"),
        ({**GIVEN, "settings": {"LEASE_SECONDS": 60}}, "/settings/LEASE_SECONDS"),
        ({**GIVEN, "flower": {"port": 80}}, "/flower/port"),
    ],
)
def test_wrong_values_are_refused_by_name(values: Manifest, says: str) -> None:
    answer = called("template", "cohort-sync", CHART, values=values)
    assert answer.returncode != 0
    assert says in answer.stderr


# --- what is rendered, started

# The monitor and the receiver can do their work without it.
NEED_THE_QUEUE = ("scheduler", "worker", "flower")


class Cluster:
    """The processes of a rendered chart on this machine."""

    def __init__(self, manifests: list[Manifest], secret: dict[str, str], folder: Path) -> None:
        self._manifests, self._secret, self._folder = manifests, secret, folder
        self.running: dict[str, tuple[Pod, subprocess.Popen[bytes]]] = {}

    def migrate(self) -> None:
        pod = self._pod(of(self._manifests, "Job")["migration"], "migration")
        process = pod.start()
        assert process.wait(timeout=60) == 0, pod.log.read_text()

    def start(self) -> None:
        for name, deployment in of(self._manifests, "Deployment").items():
            for number in range(deployment["spec"]["replicas"]):
                pod = self._pod(deployment, f"{name}-{number}")
                self.running[f"{name}-{number}"] = pod, pod.start()

    def _pod(self, manifest: Manifest, name: str) -> Pod:
        return Pod(manifest["spec"]["template"], self._secret, self._folder / name)

    def url(self, name: str) -> str:
        [port] = self.running[f"{name}-0"][0].container["ports"]
        return f"http://127.0.0.1:{port['containerPort']}"

    def wait(self, probe: str, *, well: bool = True, of: tuple[str, ...] = ()) -> None:
        for name, (pod, process) in self.running.items():
            if of and pod.name not in of:
                continue
            try:
                wait_until(lambda: pod.answers(probe) is well, seconds=40, pause=0.2)  # noqa: B023 - at once
            except AssertionError:
                raise AssertionError(f"{probe} of {name}: {pod.log.read_text()[-3000:]}") from None
            assert process.poll() is None, name

    def stop(self) -> None:
        """As a node does: SIGTERM, then SIGKILL after the pod's grace."""
        for _, process in self.running.values():
            process.terminate()
        for name, (pod, process) in self.running.items():
            assert process.wait(timeout=pod.grace) == 0, name
        self.running = {}

    def kill(self) -> None:
        for _, process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def emptied(url: str) -> Iterator[str]:
    """The URL of a new database on that server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE pods")
    yield url.replace("/postgres?", "/pods?")


@pytest.fixture
def secret(postgres_url: str) -> Iterator[dict[str, str]]:
    with valkey_over_tcp() as redis_url, emptied(postgres_url) as database_url:
        yield {
            "cohort_sync_database_url": database_url,
            "cohort_sync_redis_url": redis_url,
            "cohort_sync_secret_key": Fernet.generate_key().decode(),
            "cohort_sync_flower_password": "for the test",
        }


def values_for(vendors: Sandbox) -> Manifest:
    timing = ("lease_seconds", "retry_base_seconds", "retry_max_seconds", "uncertain_seconds")
    return {
        **GIVEN,
        "settings": {
            "AMPLITUDE_BASE_URL": vendors.url,
            "MARKETING_CLOUD_AUTH_URL": vendors.url,
            **{name.upper(): str(TIMING[name]) for name in timing},
        },
        "worker": {"replicas": 1},  # two would have one name: they have one host here
        "flower": {"port": free_port()},
        "monitor": {"port": free_port()},
        "receiver": {"enabled": True, "replicas": 1, "port": free_port()},
    }


def test_what_is_rendered_works(vendors: Sandbox, secret: dict[str, str], short_path: Path) -> None:
    vendors.reset()
    cluster = Cluster(rendered(values_for(vendors)), secret, short_path / "pods")
    try:
        cluster.migrate()
        cluster.start()
        cluster.wait("startupProbe")
        cluster.wait("readinessProbe")
        _syncs(vendors, secret, cluster)
        with Redis.from_url(secret["cohort_sync_redis_url"], retry=None) as queue:
            queue.config_set("maxmemory", "1")
            cluster.wait("readinessProbe", well=False, of=NEED_THE_QUEUE)
            cluster.wait("livenessProbe")
            queue.config_set("maxmemory", "0")
        cluster.wait("readinessProbe")
        cluster.stop()
    finally:
        cluster.kill()


def _syncs(vendors: Sandbox, secret: dict[str, str], cluster: Cluster) -> None:
    """Flower's door starts a run that ends well."""
    settings = Settings(
        _env_file=None,
        database_url=secret["cohort_sync_database_url"],
        redis_url=secret["cohort_sync_redis_url"],
        secret_key=secret["cohort_sync_secret_key"],
    )
    product = Product(Database(settings), vendors, cluster, cluster.running["worker-0"][0].log)
    product.begin()
    binding = product.bind()
    answer = requests.post(
        f"{cluster.url('flower')}/api/task/async-apply/sync.trigger",
        json={"args": [binding.name]},
        auth=("cohort-sync", secret["cohort_sync_flower_password"]),
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    with product.db.read() as session:
        run_id = wait_until(lambda: session.scalar(select(SyncRun.id)), seconds=20)
    run = product.ended(run_id)
    assert (run.state, run.error_code) == (RunState.SUCCEEDED, None), run.error_message
    product.equal("purchrs", "Purchasers")
    assert (
        "cohort_sync_runs_unclaimed 0" in requests.get(f"{cluster.url('monitor')}/metrics", timeout=10).text
    )
    message = requests.post(f"{cluster.url('receiver')}/webhooks/{product.name}", data=b"{}", timeout=10)
    assert message.status_code == 401
    product.close()
    product.db.dispose()
