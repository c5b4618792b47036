"""The scheduler's process as an operator starts and stops it, on both databases and a real broker."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select

from config.queue_names import KEY_PREFIX
from config.settings import Settings
from models.database import Database
from models.setup.bindings import Timing
from models.tables import CohortBinding, SyncRun
from models.types import RunState
from tests import mains
from tests.factories import make_binding, make_destination, make_source
from tests.forked import Forked
from tests.support import Valkey, environment, wait_until


class Process:
    """One scheduler process and its log."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._log = directory / "scheduler.log"
        given = {"COHORT_SYNC_LOG_FORMAT": "json", "COHORT_SYNC_TICK_SECONDS": "0.1"}
        self._log.write_bytes(b"")
        self.process = Forked(
            mains.scheduler, [], env=environment(settings) | given, stderr=self._log, cwd=directory
        )

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Settings], Process]]:
    """Start a scheduler process; it is killed at the end."""
    started: list[Process] = []

    def begin(settings: Settings) -> Process:
        started.append(Process(settings, tmp_path))
        return started[-1]

    yield begin
    for process in started:
        process.process.kill()
        process.process.wait()


@pytest.fixture
def due(db: Database) -> CohortBinding:
    """A binding that is due every minute, now for the first time."""
    make_source(db)
    make_destination(db)
    now = datetime.now(UTC)
    minute = now.replace(second=0, microsecond=0)
    return make_binding(db, timing=Timing(cron="* * * * *", next_occurrence=minute, next_due_at=minute))


def runs_of(db: Database) -> list[SyncRun]:
    with db.read() as session:
        return list(session.scalars(select(SyncRun)))


@pytest.mark.usefixtures("due")
def test_process_publishes_what_is_due_and_leaves_on_sigterm(
    db: Database, stack: Settings, valkey: Valkey, start: Callable[[Settings], Process]
) -> None:
    process = start(stack)
    wait_until(valkey.messages, seconds=15)
    assert [run for _, run in valkey.messages()] == [run.id for run in runs_of(db)][:1]
    wait_until(lambda: valkey.client.keys(f"{KEY_PREFIX}scheduler:*:{process.process.pid}"), seconds=5)

    assert process.stop() == 0
    assert valkey.client.keys(f"{KEY_PREFIX}scheduler:*") == []
    (line,) = process.events("tick")[:1]
    assert (line["process"], line["bindings"], line["queued"]) == ("scheduler", 1, 1)
    assert len(process.events("tick")) < 5, "idle ticks are silent"
    assert process.log()[-1]["event"] == "scheduler_stopped"


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_process_leaves_on_sigint(stack: Settings, start: Callable[[Settings], Process]) -> None:
    process = start(stack)
    wait_until(lambda: process.events("scheduler_started"), seconds=15)
    assert process.stop(signal.SIGINT) == 0


@pytest.mark.usefixtures("due")
@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_occurrence_of_a_time_without_a_broker_is_published_when_it_is_back(
    db: Database, stack: Settings, valkey: Valkey, start: Callable[[Settings], Process]
) -> None:
    valkey.kill()
    process = start(stack)
    (run,) = wait_until(lambda: runs_of(db), seconds=15)
    assert (run.state, run.published_at) == (RunState.QUEUED, None)
    wait_until(lambda: process.events("broker_unreachable"), seconds=5)

    valkey.start()
    wait_until(valkey.messages, seconds=10)
    assert valkey.messages()[0] == ("sync.snapshot", run.id)
    assert process.stop() == 0


@pytest.mark.usefixtures("due")
@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_process_waits_for_a_database_that_is_away(
    db: Database,
    postgres_url: str,
    stack: Settings,
    valkey: Valkey,
    start: Callable[[Settings], Process],
) -> None:
    name = db.engine.url.database
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        process = start(stack)
        wait_until(lambda: len(process.events("tick_failed")) >= 2, seconds=15)
        assert process.events("tick_failed")[0]["code"] == "DATABASE_UNREACHABLE"
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        wait_until(valkey.messages, seconds=15)

        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        before = len(process.events("tick_failed"))
        wait_until(lambda: len(process.events("tick_failed")) > before, seconds=10)
        began = time.monotonic()
        assert process.stop() == 0, "told to leave while the database is away"
        assert time.monotonic() - began < 3
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert len(runs_of(db)) >= 1


def test_process_refuses_a_database_without_the_schema(
    settings: Settings, start: Callable[[Settings], Process]
) -> None:
    process = start(settings)
    assert process.process.wait(15) == 1
    (line,) = process.log()
    assert (line["event"], line["code"]) == ("scheduler_not_started", "DATABASE_SCHEMA")
