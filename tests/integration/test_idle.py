"""What a process loads although nothing asks for it: each library is seconds of a command, and megabytes for months.

Looked at in real processes: a module of ours that they import at their start writes down what is loaded when asked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.stack import running
from config.settings import Settings
from tests.integration.door import Door
from tests.support import environment, wait_until

TELLS = """
import os, pathlib, signal, sys

def tell(*_):
    told = pathlib.Path(__file__).with_name(f"{os.getpid()}.loaded")
    draft = told.with_suffix(".draft")
    draft.write_text(" ".join(sys.modules))
    draft.replace(told)

signal.signal(signal.SIGUSR2, tell)
"""
# Of nobody, as long as the database is SQLite and nobody is notified.
NOBODY = {"alembic", "mako", "psycopg", "sqlalchemy.dialects.postgresql", "pydantic_settings", "apprise"}
DATABASE = {"sqlalchemy", "cryptography"}
QUEUE = {"celery", "kombu", "redis"}
WORK = {"numpy", "requests", "orjson", "isal", "pyrate_limiter"}
PAGES = {"tornado", "flower", "uvicorn", "starlette", "prometheus_client"}
UNLOADED = {
    "up": NOBODY | DATABASE | QUEUE | WORK | PAGES | {"valkey", "croniter"},
    "cs-scheduler": NOBODY | WORK | PAGES,
    "cs-worker-1": NOBODY | PAGES | {"prompt_toolkit", "click_repl"},
    "cs-flower": NOBODY | WORK | {"prompt_toolkit", "uvicorn", "starlette"},
    "cs-monitor": NOBODY | WORK | {"celery", "kombu", "tornado", "flower"},
}


@pytest.fixture
def idle(settings: Settings, tmp_path: Path) -> Iterator[psutil.Process]:
    """The process of an `up` of its own that is ready."""
    (tmp_path / "sitecustomize.py").write_text(TELLS)
    door = Door(settings, tmp_path)
    ports = {"COHORT_SYNC_FLOWER_PORT": "0", "COHORT_SYNC_MONITOR_PORT": "0"}
    with door.start("up", env=ports | {"PYTHONPATH": str(tmp_path)}) as process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("ready") for line in process.stdout)
            found = running.find(settings.data_dir)
            assert found is not None
            yield psutil.Process(found.pid)
        finally:
            process.terminate()


def loaded(process: psutil.Process, where: Path) -> set[str]:
    told = where / f"{process.pid}.loaded"
    process.send_signal(signal.SIGUSR2)
    wait_until(told.exists, seconds=10)
    return set(told.read_text().split())


def test_each_process_of_an_idle_stack_has_only_what_it_needs(idle: psutil.Process, tmp_path: Path) -> None:
    by_name = {one.name(): one for one in idle.children()} | {"up": idle}
    found = {name: loaded(by_name[name], tmp_path) for name in UNLOADED}
    needless = {name: found[name] & without for name, without in UNLOADED.items()}
    assert not any(needless.values()), needless
    # What is looked at is what is loaded.
    assert (
        "sqlalchemy"
        in found["cs-scheduler"] & found["cs-worker-1"] & found["cs-flower"] & found["cs-monitor"]
    )
    assert "numpy" in found["cs-worker-1"]  # before its processes are forked, so that they share it


def test_status_loads_only_what_it_shows(settings: Settings) -> None:
    code = "import sys, cohort_sync; sys.argv[1:] = ['status']; cohort_sync.main(); print(*sys.modules)"

    def told() -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | environment(settings),
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    first, then = told(), told()  # the first one makes the database
    assert "There is no binding yet" in then
    assert "alembic" in first.split()
    without = NOBODY | QUEUE | WORK | PAGES | {"cryptography", "structlog", "rich", "yaml", "croniter"}
    assert without & set(then.split()) == set()
    ours = {
        "models.membership.list_trust",
        "models.membership.webhooks",
        "models.runs.lifecycle",
        "scheduler",
        "worker",
    }
    assert ours & set(then.split()) == set()
