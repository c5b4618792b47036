"""Whose is the next free slot of a data extension."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models.database import Database
from models.direction import Direction
from models.runs import batches
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import BatchState, RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class Extension:
    """Runs that push to one data extension."""

    def __init__(self, db: Database) -> None:
        self.db = db
        make_source(db)
        make_destination(db)

    def run(
        self, age: timedelta, *, rows: int = 3, flying: int = 0, extension: str = "de", **columns: Any
    ) -> int:
        """A run of `rows` batches that was scheduled so long ago; the first `flying` are at the vendor."""
        binding = make_binding(self.db)
        values = {"state": RunState.RUNNING, "lease_until": NOW + MINUTE, "stage": Stage.PUSH, **columns}
        with self.db.write() as session:
            run = SyncRun(
                binding=session.get_one(CohortBinding, binding.id),
                trigger=Trigger.SCHEDULE,
                scheduled_for=NOW - age,
                created_at=NOW,
                **values,
            )
            session.add(run)
            session.flush()
            batches.plan(session, run, [(Direction.ENTER, 1, b"k")] * rows, data_extension_id=extension)
            mine = select(PushBatch).where(PushBatch.run_id == run.id).order_by(PushBatch.seq)
            for batch in session.scalars(mine.limit(flying)):
                batch.state, batch.sent_at = BatchState.SUBMITTED, NOW
            return run.id

    def takes(self, run_id: int) -> bool:
        with self.db.write() as session:
            run = session.get_one(SyncRun, run_id)
            return batches.take_slot(session, run, limit=2, now=NOW, deadline=60, orphaned=60) is not None


@pytest.fixture
def extension(db: Database) -> Extension:
    return Extension(db)


def test_oldest_occurrence_goes_first_among_those_that_wait(extension: Extension) -> None:
    old, older, oldest = (extension.run(n * MINUTE) for n in (1, 2, 3))
    assert not extension.takes(old)
    assert extension.takes(older), "two slots: the second oldest may have the other one"
    assert not extension.takes(old)
    assert extension.takes(oldest)
    assert not extension.takes(oldest), "all are taken"


def test_run_of_many_batches_leaves_a_slot_to_others(extension: Extension) -> None:
    large = extension.run(10 * MINUTE, rows=100, flying=1)
    small = extension.run(MINUTE)
    assert not extension.takes(large)
    assert extension.takes(small)


def test_run_alone_takes_both(extension: Extension) -> None:
    alone = extension.run(MINUTE)
    extension.run(2 * MINUTE, extension="another")
    assert extension.takes(alone)
    assert extension.takes(alone)


@pytest.mark.parametrize(
    "columns",
    [
        {"state": RunState.WAITING, "wake_at": NOW + MINUTE, "lease_until": None},
        {"state": RunState.WAITING, "wake_at": NOW - MINUTE, "lease_until": None},
        {"lease_until": NOW - SECOND},
        {"cancel_requested": True},
        {"stage": Stage.DIFF},
        {"state": RunState.FAILED, "finished_at": NOW},
    ],
    ids=["sleeps", "is not woken", "was killed", "is cancelled", "does not push yet", "has ended"],
)
def test_run_that_could_not_take_it_now_stops_nobody(extension: Extension, columns: dict[str, Any]) -> None:
    extension.run(2 * MINUTE, **columns)
    extension.run(3 * MINUTE, **columns)
    young = extension.run(MINUTE)
    assert extension.takes(young)
    assert extension.takes(young)


def test_run_that_looks_again_within_a_moment_is_waited_for(extension: Extension) -> None:
    for age in (2, 3):
        extension.run(age * MINUTE, state=RunState.WAITING, wake_at=NOW + SECOND, lease_until=None)
    assert not extension.takes(extension.run(MINUTE))
