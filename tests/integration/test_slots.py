"""Whose is the next free slot of a data extension, and who is woken for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from models.database import Database
from models.direction import Direction
from models.runs import batches, slots
from models.runs.slots import SlotRules
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import BatchState, RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
RULES = SlotRules(MINUTE, MINUTE)


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

    def asleep(self, age: timedelta, **columns: Any) -> int:
        """A run that left its worker because there was no slot for it."""
        waits = {
            "state": RunState.WAITING,
            "lease_until": None,
            "slot_wanted": columns.get("extension", "de"),
        }
        return self.run(age, **waits | columns)

    def takes(self, run_id: int) -> bool:
        with self.db.write() as session:
            run = session.get_one(SyncRun, run_id)
            return bool(batches.take_slot(session, run, RULES, now=NOW))

    def woken(self, *, now: datetime = NOW) -> list[int]:
        """Who is woken at `now`; once."""
        with self.db.read() as session:
            idle = slots.idle(session, RULES, now=now)
        with self.db.write() as session:
            found = sorted(one.run_id for one in slots.wake_all(session, RULES, now=now))
        assert idle or not found, "whoever is woken, there was an idle slot"
        return found

    def change(self, run_id: int, **columns: Any) -> None:
        with self.db.write() as session:
            session.execute(update(SyncRun).where(SyncRun.id == run_id).values(**columns))

    def end_job(self, run_id: int) -> None:
        with self.db.write() as session:
            flying = select(PushBatch.id).where(
                PushBatch.run_id == run_id, PushBatch.state == BatchState.SUBMITTED
            )
            one = session.scalars(flying.limit(1)).one()
            session.execute(
                update(PushBatch).where(PushBatch.id == one).values(state=BatchState.ACKNOWLEDGED)
            )


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


def test_sleeping_run_is_waited_for(extension: Extension) -> None:
    for age in (2, 3):
        extension.asleep(age * MINUTE)
    assert not extension.takes(extension.run(MINUTE))


def test_free_slots_wake_as_many_in_the_order_of_their_time(extension: Extension) -> None:
    young, old, older = (extension.asleep(n * MINUTE) for n in (1, 2, 3))
    assert extension.woken() == [old, older]
    assert extension.woken() == [], "they take them in a moment"
    assert extension.takes(older)
    assert extension.takes(old)
    assert extension.woken() == [], "no slot is free"
    assert not extension.takes(young)


def test_ended_job_wakes_the_next_run(extension: Extension) -> None:
    busy = [extension.run(n * MINUTE, rows=1, flying=1) for n in (5, 6)]
    young, old = extension.asleep(MINUTE), extension.asleep(2 * MINUTE)
    assert extension.woken() == []
    extension.end_job(busy[0])
    assert extension.woken() == [old]
    extension.end_job(busy[1])
    assert extension.woken() == [young]


def test_run_in_a_worker_s_hands_takes_the_slot_itself(extension: Extension) -> None:
    extension.run(3 * MINUTE)
    extension.run(2 * MINUTE)
    extension.asleep(MINUTE)
    assert extension.woken() == []


def test_run_that_waits_for_its_own_job_is_woken_for_a_second_slot(extension: Extension) -> None:
    """But only if nobody without a job wants it."""
    large = extension.asleep(9 * MINUTE, flying=1, wake_at=NOW + MINUTE)
    small = extension.asleep(MINUTE)
    assert extension.woken() == [small]
    extension.change(small, cancel_requested=True)
    assert extension.woken() == [large]


def test_woken_run_that_nobody_claims_makes_room(extension: Extension) -> None:
    """Its message was lost, or its worker was killed: the slot goes to the next one, and it may still come."""
    dead = [extension.asleep(n * MINUTE) for n in (2, 3)]
    alive = extension.asleep(MINUTE)
    assert extension.woken() == sorted(dead)
    assert extension.woken(now=NOW + slots.LATE) == []
    assert extension.woken(now=NOW + slots.LATE + SECOND) == [alive]


def test_worker_that_died_keeps_a_slot_for_its_lease(extension: Extension) -> None:
    for age in (2, 3):
        extension.run(age * MINUTE, lease_until=NOW + SECOND)
    asleep = extension.asleep(MINUTE)
    assert extension.woken() == []
    assert extension.woken(now=NOW + SECOND) == [asleep]


@pytest.mark.parametrize("code", slots.PAUSES)
def test_while_the_vendor_asks_for_a_pause_nobody_else_is_woken(extension: Extension, code: str) -> None:
    """They would only be told the same."""
    for age in (2, 3):
        extension.asleep(age * MINUTE, wake_at=NOW + MINUTE, error_code=code)
    extension.asleep(MINUTE)
    assert extension.woken() == []


def test_job_that_nobody_follows_keeps_its_slot_for_a_time(extension: Extension) -> None:
    for age in (2, 3):
        extension.run(age * MINUTE, rows=1, flying=1, state=RunState.FAILED, finished_at=NOW)
    asleep = extension.asleep(MINUTE)
    assert extension.woken() == []
    assert extension.woken(now=NOW + MINUTE) == [asleep]


def test_one_slot_is_kept_while_a_submission_s_end_is_unknown(extension: Extension) -> None:
    asleep = [extension.asleep(n * MINUTE) for n in (1, 2)]
    with extension.db.write() as session:
        session.get_one(SyncRun, asleep[1]).binding.quiet_until = NOW + SECOND
    assert extension.woken() == [asleep[1]]
    assert extension.takes(asleep[1])
    assert extension.woken() == []
    assert extension.woken(now=NOW + SECOND) == [asleep[0]]


def test_each_data_extension_has_its_own(extension: Extension) -> None:
    here = extension.asleep(MINUTE)
    there = extension.asleep(2 * MINUTE, extension="another", slot_wanted="another")
    assert extension.woken() == sorted([here, there])
