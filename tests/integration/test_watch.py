"""Who is not at work is said: by the facts in the database and the schedulers' signs of life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from models.database import Database
from models.observability import health
from models.setup.bindings import Timing
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Trigger
from scheduler.health_log import HealthLog
from tests.factories import make_binding, make_destination, make_source

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def filled(db: Database) -> Database:
    make_source(db)
    make_destination(db)
    return db


def due(db: Database, at: datetime) -> None:
    make_binding(db, timing=Timing("0 * * * *", "UTC", at, at))


def run(db: Database, state: RunState, **columns: Any) -> None:
    binding = make_binding(db)
    with db.write() as session:
        session.add(
            SyncRun(
                binding=session.get_one(CohortBinding, binding.id),
                trigger=Trigger.SCHEDULE,
                scheduled_for=NOW,
                state=state,
                **{"created_at": NOW - 5 * MINUTE, **columns},
            )
        )


def codes(db: Database, schedulers: int | None = 1) -> list[str]:
    with db.read() as session:
        return [error.code for _, error in health.alarms(health.facts(session, NOW, schedulers=schedulers))]


def test_nothing_is_wrong_where_nothing_is_late(filled: Database) -> None:
    assert codes(filled, schedulers=0) == [], "without a schedule nobody misses a scheduler"
    due(filled, NOW - MINUTE)
    run(filled, RunState.QUEUED, created_at=NOW - 30 * SECOND)
    run(filled, RunState.QUEUED, created_at=NOW - 90 * SECOND, published_at=NOW - SECOND)
    run(filled, RunState.WAITING, wake_at=NOW + MINUTE)
    run(filled, RunState.HELD)
    run(filled, RunState.RUNNING, lease_until=NOW + SECOND)
    run(filled, RunState.SUCCEEDED, finished_at=NOW)
    assert codes(filled) == []
    assert codes(filled, schedulers=None) == [], "the queue is away: that is said elsewhere"


def test_scheduler_that_does_not_tick_or_is_late(filled: Database) -> None:
    due(filled, NOW - 3 * MINUTE)
    assert codes(filled, schedulers=0) == ["SCHEDULER_SILENT"]
    assert codes(filled, schedulers=1) == ["SCHEDULER_BEHIND"]


@pytest.mark.parametrize(
    ("state", "columns"),
    [
        (RunState.QUEUED, {}),
        (RunState.QUEUED, {"published_at": NOW - SECOND}),
        (RunState.WAITING, {"wake_at": NOW - 2 * MINUTE}),
        (RunState.RUNNING, {"lease_until": NOW - 2 * MINUTE}),
    ],
)
def test_workers_that_claim_nothing(filled: Database, state: RunState, columns: dict[str, Any]) -> None:
    run(filled, state, **columns)
    assert codes(filled) == ["WORKERS_SILENT"]
    run(filled, RunState.RUNNING, lease_until=NOW + SECOND)
    assert codes(filled) == ["WORKERS_BUSY"]


def test_scheduler_warns_every_half_minute_and_not_at_its_start(filled: Database) -> None:
    run(filled, RunState.QUEUED)
    eyes = HealthLog()
    with capture_logs() as lines:
        for second in range(-60, 1):
            eyes.look(filled, NOW + second * SECOND)
    assert [(line["log_level"], line["code"], line["about"]) for line in lines] == [
        ("warning", "WORKERS_SILENT", "workers")
    ] * 2
