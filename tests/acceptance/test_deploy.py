"""What stands in `deploy/` against the product: its commands, its settings, its files. No engine is needed."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import main as cli
from config.pulse import STALE_SECONDS
from config.settings import Settings
from monitor import definitions

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VARIABLES = {f"COHORT_SYNC_{name.upper()}" for name in Settings.model_fields}
METRICS = {family.name.upper() for family in definitions.FAMILIES}
# What Prometheus and Grafana read names metrics, not settings: tests/integration/test_monitoring.py.
TEXTS = [
    path
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and path.parent.name not in {"prometheus", "grafana"}
]


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def dockerfile() -> list[list[str]]:
    """The instructions, each with its words."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.split() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def commands() -> list[list[str]]:
    """Every cohort-sync command line that deploy/ names."""
    found = [
        line.removeprefix("ExecStart=").split()[1:]
        for unit in UNITS
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStart=")
    ]
    text = (DEPLOY / "compose.yaml").read_text()
    found += [
        words.replace('"', "").split(", ")
        for words in re.findall(r"^    command: \[(.+)\]$", text, flags=re.MULTILINE)
    ]
    found += [words.split(", ") for words in re.findall(r"cohort-sync-entrypoint, (.+)\]", text)]
    readme = (DEPLOY / "README.md").read_text()
    found += [words.split() for words in re.findall(r"`cohort-sync ([a-z -]+)`", readme)]
    found += [words.split() for words in re.findall(r"--rm (?:-it )?scheduler ([a-z ]+)", readme)]
    found += [["up"]]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_named_exists(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main([*(word for word in words if word.isalpha()), "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in shown


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_variable_named_is_a_setting(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(r"COHORT_SYNC_[A-Z_]+[A-Z]", text)) - {"COHORT_SYNC_NAME"}
    named |= {
        f"COHORT_SYNC_{name.upper()}" for name in re.findall(r"cohort_sync_((?!NAME)[a-z_]+[a-z])", text)
    }
    assert named - METRICS <= VARIABLES


def test_the_example_lists_every_setting_with_its_default() -> None:
    text = (DEPLOY / ".env.example").read_text()
    listed = dict(re.findall(r"^#(COHORT_SYNC_\w+)=(.*)$", text, flags=re.MULTILINE))
    assert set(listed) == VARIABLES
    for name, field in Settings.model_fields.items():
        value = listed[f"COHORT_SYNC_{name.upper()}"]
        if name != "data_dir" and value:
            assert str(field.default) == value, name
        elif name != "data_dir":
            assert not field.get_default(call_default_factory=True), name
    assert not re.search(r"^COHORT_SYNC_", text, flags=re.MULTILINE)


def test_the_example_can_be_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    uncommented = re.sub(r"^#(?=COHORT_SYNC_)", "", (DEPLOY / ".env.example").read_text(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(uncommented)
    taken = Settings(_env_file=tmp_path / ".env")
    without = Settings(_env_file=None)
    for name in Settings.model_fields:
        if name not in {"data_dir", "flower_password"}:
            assert getattr(taken, name) == getattr(without, name)
    assert not taken.flower_password


def test_the_image_is_made_of_files_that_exist() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    for name, *words in dockerfile():
        if name == "COPY" and not any(word.startswith("--from") for word in words):
            sources = [word for word in words if not word.startswith("--")][:-1]
            assert sources
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source.removeprefix("./") in kept
    assert all((ROOT / path).exists() for path in kept)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= kept
    copied = {words[1] for words in dockerfile() if words[0] == "COPY"}
    assert packages <= copied


def test_the_image_runs_without_root_and_without_secrets() -> None:
    instructions = dockerfile()
    assert [words[0] for words in instructions].count("FROM") == 2
    last_stage = instructions[[words[0] for words in instructions].index("FROM", 2) :]
    assert ["USER", "10001:10001"] in last_stage
    text = (DEPLOY / "Dockerfile").read_text()
    assert not re.search(r"(PASSWORD|SECRET_KEY|DATABASE_URL|TOKEN)\s*=", text)
    assert re.findall(r"install-lock\.sh \S+ (\S+)", text) == ["requirements.lock", "build.lock"]
    assert any(words[0] == "HEALTHCHECK" for words in last_stage)


IMPORTED = """
import importlib, json, pkgutil, sys
from importlib.metadata import packages_distributions
locked, known = set(sys.argv[1:]), packages_distributions()
class Missing:
    # What the lock lacks is not there: some libraries import what happens to be installed.
    def find_spec(self, name, path=None, target=None):
        from_where = {d.lower().replace("_", "-") for d in known.get(name.partition(".")[0], ())}
        if from_where and not from_where & locked:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
import cli, config, models, monitor, receiver, sandbox, scheduler, worker
for package in (cli, config, models, monitor, receiver, sandbox, scheduler, worker):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(("__main__", "migrations.env")):
            importlib.import_module(module.name)
import flower.command, kombu.transport.redis, psycopg, uvicorn.protocols.http.h11_impl
tops = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({d.lower().replace("_", "-") for top in tops for d in known.get(top, ())})))
"""


def test_the_lock_holds_everything_that_is_imported() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = {*re.findall(r"^([a-z0-9.-]+)==", lock, flags=re.MULTILINE), "cohort-sync", "setuptools"}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTED, *locked],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert set(json.loads(answer.stdout)) <= locked


def test_secrets_come_from_files_unless_they_are_set(tmp_path: Path) -> None:
    program = tmp_path / "cohort-sync"
    program.write_text('#!/bin/sh\necho "$*"; env | grep ^COHORT_SYNC_ | sort\n')
    program.chmod(0o755)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "cohort_sync_secret_key").write_text("a b'\"$x`=\n")
    (secrets / "cohort_sync_flower_password").write_text("from a file")
    (secrets / "cohort_sync_x;touch pwned").write_text("")
    (secrets / "postgres_password").write_text("not ours")
    answer = subprocess.run(
        [DEPLOY / "entrypoint.sh", "worker", "--name", "a b"],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SECRETS_DIR": str(secrets),
            "COHORT_SYNC_FLOWER_PASSWORD": "set",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.splitlines() == [
        "worker --name a b",
        "COHORT_SYNC_FLOWER_PASSWORD=set",
        "COHORT_SYNC_SECRET_KEY=a b'\"$x`=",
    ]
    assert not (tmp_path / "pwned").exists()


def test_the_services_are_hardened_and_wait_for_each_other() -> None:
    services = compose()["services"]
    ours = {name: one for name, one in services.items() if one.get("image") == "cohort-sync"}
    assert set(ours) == {"migrate", "scheduler", "worker", "receiver", "flower", "monitor"}
    assert ours["worker"]["deploy"]["replicas"] == 2
    assert ours["worker"]["stop_grace_period"] == "45s"
    assert {"--appendonly", "noeviction"} <= set(services["valkey"]["command"])
    for name, service in ours.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "ports" not in service or all(port.startswith("127.0.0.1:") for port in service["ports"])
        for other in service["depends_on"]:
            assert other in services
            waits_for_end = service["depends_on"][other]["condition"] == "service_completed_successfully"
            assert waits_for_end == (other == "migrate")
            assert waits_for_end or "healthcheck" in services[other]


def test_what_the_services_name_is_declared() -> None:
    document = compose()
    for service in document["services"].values():
        assert set(service.get("secrets", [])) <= set(document["secrets"])
        assert set(service["networks"]) <= set(document["networks"])
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(document["volumes"])
        build = service.get("build")
        assert build is None or (DEPLOY / build["context"] / build["dockerfile"]).exists()
        assert {config["source"] for config in service.get("configs", [])} <= set(document["configs"])
    for config in document["configs"].values():
        assert (DEPLOY / config["file"]).is_file()
    for secret in document["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    for name in ("postgres", "valkey"):
        assert document["services"][name]["networks"] == ["inside"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(unit, units)
    program = tmp_path / "opt/cohort-sync/bin/cohort-sync"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for target in ("network-online", "multi-user", "sysinit", "basic", "shutdown"):
        (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (units / "system.slice").write_text("[Unit]\nDefaultDependencies=no\n")
    names = [unit.name.replace("@.", "@1.") for unit in UNITS]
    answer = subprocess.run(
        ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in answer.stderr.splitlines() if "cohort-sync" in line] == []


def test_the_units_run_unprivileged_with_one_environment() -> None:
    assert {unit.name for unit in UNITS} == {
        "cohort-sync-flower.service",
        "cohort-sync-migrate.service",
        "cohort-sync-monitor.service",
        "cohort-sync-receiver.service",
        "cohort-sync-scheduler.service",
        "cohort-sync-worker@.service",
        "cohort-sync.service",
    }
    for unit in UNITS:
        lines = set(unit.read_text().splitlines())
        assert {
            "User=cohort-sync",
            "EnvironmentFile=/etc/cohort-sync/cohort-sync.env",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
        } <= lines
        if unit.name not in {"cohort-sync-migrate.service", "cohort-sync.service"}:  # one ends, one is `up`
            assert {"Type=notify", "WatchdogSignal=SIGKILL", "Restart=always"} <= lines
            [seconds] = [int(line.partition("=")[2]) for line in lines if line.startswith("WatchdogSec=")]
            assert seconds > STALE_SECONDS, "a probe says it first"
    worker = (DEPLOY / "systemd" / "cohort-sync-worker@.service").read_text()
    assert "KillMode=mixed" in worker
    assert "TimeoutStopSec=40" in worker
    whole = (DEPLOY / "systemd" / "cohort-sync.service").read_text()
    assert "ExecStart=/opt/cohort-sync/bin/cohort-sync up\n" in whole
    assert "Restart=on-failure\n" in whole  # `down` is no failure


def test_flowers_file_leaves_the_address_and_the_password_alone() -> None:
    set_there = {
        name for name in runpy.run_path(str(DEPLOY / "flowerconfig.py")) if not name.startswith("__")
    }
    assert set_there
    assert not set_there & {"address", "port", "basic_auth"}
