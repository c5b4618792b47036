"""What a tick writes, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.orm import Session

from cli.config_file.timing import timing_of
from models import database
from models.database import Database
from models.database.errors import named_errors
from models.errors import TransientError
from models.runs import lifecycle, schedule
from models.setup.bindings import Timing, pause_binding, update_binding
from models.tables import AmplitudeProject, AuditEvent, CohortBinding, SyncRun
from models.types import RunState, Stage, Tier, Trigger
from scheduler.tick import Ticked, decide, tick
from tests.factories import make_binding, make_destination, make_source
from tests.support import wait_until

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def hourly(db: Database) -> Callable[..., CohortBinding]:
    """Make a binding that is due every hour, first at one o'clock on 2 March."""
    make_source(db)
    make_destination(db)
    number = count(1)  # jitter comes from the name: it must not depend on what other tests have made

    def make(**timing: Any) -> CohortBinding:
        values: dict[str, Any] = {
            "cron": "0 * * * *",
            "next_occurrence": MIDNIGHT + HOUR,
            "next_due_at": MIDNIGHT + HOUR,
            **timing,
        }
        return make_binding(db, f"hourly {next(number)}", timing=Timing(**values))

    return make


def all_runs(db: Database) -> list[SyncRun]:
    with db.read() as session:
        return list(session.scalars(select(SyncRun).order_by(SyncRun.id)))


def one_run(db: Database) -> SyncRun:
    (run,) = all_runs(db)
    return run


def reload(db: Database, binding: CohortBinding) -> CohortBinding:
    with db.read() as session:
        return session.get_one(CohortBinding, binding.id)


def end(db: Database, run: SyncRun, now: datetime) -> None:
    with db.write() as session:
        lifecycle.finish(session, session.get_one(SyncRun, run.id), RunState.SUCCEEDED, now=now)


def start_by_hand(db: Database, binding: CohortBinding) -> None:
    with db.write() as session:
        lifecycle.dispatch(
            session,
            session.get_one(CohortBinding, binding.id),
            trigger=Trigger.MANUAL,
            scheduled_for=MIDNIGHT,
            now=MIDNIGHT,
            actor="test",
        )


def test_due_binding_becomes_one_queued_run_and_moves_on(
    db: Database, hourly: Callable[..., CohortBinding]
) -> None:
    binding = hourly()
    now = MIDNIGHT + HOUR + timedelta(seconds=3)

    assert tick(db, now) == Ticked(bindings=1, queued=1)

    run = one_run(db)
    assert (run.binding_id, run.trigger, run.scheduled_for) == (
        binding.id,
        Trigger.SCHEDULE,
        MIDNIGHT + HOUR,
    )
    assert (run.state, run.stage, run.published_at, run.fence) == (RunState.QUEUED, Stage.SNAPSHOT, None, 0)
    moved = reload(db, binding)
    assert moved.next_occurrence == moved.next_due_at == MIDNIGHT + 2 * HOUR
    assert tick(db, now) == Ticked()


def test_nothing_is_due_before_its_time(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    hourly()
    assert tick(db, MIDNIGHT + HOUR - timedelta(microseconds=1)) == Ticked()
    assert all_runs(db) == []


def test_idle_tick_takes_no_lock(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    hourly()
    seen: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    event.listen(db.engine, "begin", lambda c: seen.extend(c.get_execution_options()))
    tick(db, MIDNIGHT)
    assert not [one for one in seen if "UPDATE" in one or one == "cohort_sync_write"]


@pytest.mark.parametrize("cron", ["0 * * * *", "H * * * *"])
def test_run_keeps_the_nominal_time_and_jitter_moves_only_its_start(
    db: Database, hourly: Callable[..., CohortBinding], cron: str
) -> None:
    binding = hourly()
    first = timing_of(binding, MIDNIGHT, cron=cron, jitter_seconds=1800)
    occurrence, due = first.next_occurrence, first.next_due_at
    assert occurrence
    assert due
    assert timedelta() < due - occurrence <= timedelta(seconds=1800)
    with db.write() as session:
        update_binding(session, binding.name, timing=first, now=MIDNIGHT, actor="test")

    assert tick(db, due - timedelta(seconds=1)) == Ticked()
    assert tick(db, due).queued == 1
    assert one_run(db).scheduled_for == occurrence
    moved = reload(db, binding)
    assert (moved.next_occurrence, moved.next_due_at) == (occurrence + HOUR, due + HOUR), (
        "as the command line says"
    )


def test_binding_without_first_occurrence_gets_it_from_the_scheduler(
    db: Database, hourly: Callable[..., CohortBinding]
) -> None:
    binding = hourly(next_occurrence=None, next_due_at=MIDNIGHT + MINUTE)
    assert tick(db, MIDNIGHT + MINUTE).queued == 0
    assert reload(db, binding).next_occurrence == MIDNIGHT + HOUR


def test_overlap_skip_writes_a_skipped_run(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    hourly()
    tick(db, MIDNIGHT + HOUR)
    assert tick(db, MIDNIGHT + 2 * HOUR) == Ticked(bindings=1, skipped=1)

    first, second = all_runs(db)
    assert first.state == RunState.QUEUED
    assert (second.state, second.scheduled_for) == (RunState.SKIPPED, MIDNIGHT + 2 * HOUR)
    assert second.error_code == "OVERLAP_SKIPPED"
    assert second.error_message
    assert second.error_remedy
    assert second.finished_at == MIDNIGHT + 2 * HOUR


def test_overlap_queue_defers_one_run_which_starts_when_the_first_has_ended(
    db: Database, hourly: Callable[..., CohortBinding]
) -> None:
    hourly(overlap="queue")
    for hour in (1, 2, 3):
        tick(db, MIDNIGHT + hour * HOUR)
    first, second, third = all_runs(db)
    assert [first.state, second.state, third.state] == [RunState.QUEUED, RunState.DEFERRED, RunState.SKIPPED]

    assert tick(db, MIDNIGHT + 3 * HOUR + MINUTE) == Ticked()
    end(db, first, MIDNIGHT + 3 * HOUR + MINUTE)
    assert tick(db, MIDNIGHT + 3 * HOUR + 2 * MINUTE) == Ticked(started=1)
    assert [run.state for run in all_runs(db)] == [RunState.SUCCEEDED, RunState.QUEUED, RunState.SKIPPED]


def test_deferred_run_of_a_paused_binding_stays(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    binding = hourly(overlap="queue")
    tick(db, MIDNIGHT + HOUR)
    tick(db, MIDNIGHT + 2 * HOUR)
    end(db, all_runs(db)[0], MIDNIGHT + 2 * HOUR)
    with db.write() as session:
        pause_binding(session, binding.name, reason="holidays", now=MIDNIGHT, actor="test")
    assert tick(db, MIDNIGHT + 4 * HOUR) == Ticked()


def test_manual_run_counts_as_unfinished(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    binding = hourly()
    start_by_hand(db, binding)
    assert tick(db, MIDNIGHT + HOUR).skipped == 1


def test_paused_binding_is_never_read(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    binding = hourly()
    with db.write() as session:
        pause_binding(session, binding.name, reason="holidays", now=MIDNIGHT, actor="test")
    assert tick(db, MIDNIGHT + 5 * HOUR) == Ticked()
    assert all_runs(db) == []


@pytest.mark.parametrize(
    ("catchup", "window", "hours", "late"),
    [
        ("latest", 86_400, 5.5, False),
        ("none", 86_400, 5.5, True),
        ("none", 86_400, 5.01, False),
        ("latest", 600, 5.5, True),
    ],
)
def test_catch_up_after_an_outage(
    db: Database,
    hourly: Callable[..., CohortBinding],
    catchup: str,
    window: int,
    hours: float,
    late: bool,
) -> None:
    binding = hourly(catchup=catchup, catchup_window_seconds=window)
    now = MIDNIGHT + hours * HOUR
    assert tick(db, now) == Ticked(bindings=1, queued=not late, skipped=late, missed=4 + late)
    run = one_run(db)
    assert (run.scheduled_for, run.missed, run.missed_since) == (
        MIDNIGHT + 5 * HOUR,
        4 + late,
        MIDNIGHT + HOUR,
    )
    if late:
        assert (run.state, run.trigger, run.finished_at) == (RunState.SKIPPED, Trigger.SCHEDULE, now)
        assert run.error_code == "OCCURRENCES_MISSED"
        assert run.error_message == (
            "Occurrences missed while no scheduler ran: 5, the first at 2026-03-02 01:00 UTC."
        )
    else:
        assert (run.state, run.error_code) == (RunState.QUEUED, None)
    assert reload(db, binding).next_due_at == MIDNIGHT + 6 * HOUR
    assert tick(db, now) == Ticked()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("cron", "0 0 31 2 *", "0 0 31 2 *"),
        ("cron", "whatever", "whatever"),
        ("timezone", "Mars/Olympus", "Mars/Olympus"),
        ("jitter_seconds", 2**31 - 1, "can't be computed"),
    ],
)
def test_binding_that_became_invalid_is_paused_and_stops_nobody(
    db: Database, hourly: Callable[..., CohortBinding], column: str, value: object, reason: str
) -> None:
    bad, good = hourly(), hourly()
    with db.write() as session:
        session.execute(update(CohortBinding).where(CohortBinding.id == bad.id).values({column: value}))
        if column == "jitter_seconds":
            session.execute(
                update(CohortBinding)
                .where(CohortBinding.id == bad.id)
                .values(next_occurrence=datetime(9999, 12, 31, 23, tzinfo=UTC))
            )

    assert tick(db, MIDNIGHT + HOUR) == Ticked(bindings=2, queued=1, paused=1)
    assert one_run(db).binding_id == good.id
    paused = reload(db, bad)
    assert paused.paused
    assert reason in (paused.pause_reason or "")
    with db.read() as session:
        events = session.scalars(select(AuditEvent).where(AuditEvent.action == "pause")).all()
    assert [(one.actor, one.name) for one in events] == [("scheduler", bad.name)]
    assert tick(db, MIDNIGHT + HOUR) == Ticked()


def test_source_of_another_tier_never_runs_on_schedule(
    db: Database, hourly: Callable[..., CohortBinding]
) -> None:
    binding = hourly()
    with db.write() as session:
        session.execute(update(AmplitudeProject).values(tier=Tier.GROWTH))
    assert tick(db, MIDNIGHT + HOUR) == Ticked(bindings=1, paused=1)
    assert all_runs(db) == []
    assert "growth" in (reload(db, binding).pause_reason or "")


def test_occurrence_that_has_a_run_gets_no_other(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    binding = hourly()
    tick(db, MIDNIGHT + HOUR)
    end(db, one_run(db), MIDNIGHT + HOUR)
    with db.write() as session:  # as after a resume with an older clock
        moved = session.get_one(CohortBinding, binding.id)
        moved.next_occurrence = moved.next_due_at = MIDNIGHT + HOUR
    assert tick(db, MIDNIGHT + HOUR) == Ticked(bindings=1)
    assert one_run(db).state == RunState.SUCCEEDED
    assert reload(db, binding).next_due_at == MIDNIGHT + 2 * HOUR


@pytest.mark.parametrize(("policy", "state"), [("skip", RunState.SKIPPED), ("queue", RunState.DEFERRED)])
def test_run_started_by_a_person_at_the_same_moment_goes_first(
    db: Database, hourly: Callable[..., CohortBinding], policy: str, state: RunState
) -> None:
    binding = hourly(overlap=policy)
    with db.write() as session:
        (due,) = schedule.lock_due(session, MIDNIGHT + HOUR, 1)
        session.rollback()
    decision = decide(due, MIDNIGHT + HOUR)
    assert decision.states[0] == RunState.QUEUED, "decided before the other run was there"
    start_by_hand(db, binding)
    with db.write() as session:
        assert schedule.apply_decisions(session, [decision], MIDNIGHT + HOUR) == {state: 1}
    assert [run.state for run in all_runs(db)] == [RunState.QUEUED, state]


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)  # SQLite waits for its one writer
def test_bindings_of_a_frozen_scheduler_go_to_the_others(
    db: Database, hourly: Callable[..., CohortBinding], monkeypatch: pytest.MonkeyPatch
) -> None:
    hourly()
    monkeypatch.setattr(database, "FROZEN_MS", 200)
    frozen = Session(db.engine)
    (due,) = schedule.lock_due(frozen, MIDNIGHT + HOUR, 10)
    assert tick(db, MIDNIGHT + HOUR) == Ticked(), "it is held"
    wait_until(lambda: tick(db, MIDNIGHT + HOUR).queued, seconds=5)
    with pytest.raises(TransientError), named_errors():
        schedule.apply_decisions(frozen, [decide(due, MIDNIGHT + HOUR)], MIDNIGHT + HOUR)
    frozen.close()
    assert one_run(db).state == RunState.QUEUED


def test_slices_come_in_the_order_of_their_time(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    late = [hourly(next_due_at=MIDNIGHT + HOUR - n * MINUTE) for n in range(5)]
    assert tick(db, MIDNIGHT + HOUR, limit=2) == Ticked(bindings=2, queued=2, more=True)
    assert {run.binding_id for run in all_runs(db)} == {late[3].id, late[4].id}


def test_due_query_uses_its_index(db: Database, hourly: Callable[..., CohortBinding]) -> None:
    hourly()
    with db.write() as session:
        if db.dialect == "postgresql":
            session.execute(text("SET enable_seqscan = off"))
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            prefix = "EXPLAIN QUERY PLAN " if db.dialect == "sqlite" else "EXPLAIN "
            rows = connection.connection.cursor().execute(prefix + statement, parameters).fetchall()
            plans.append("\n".join(str(row[-1]) for row in rows))

    event.listen(db.engine, "before_cursor_execute", explain)
    tick(db, MIDNIGHT)
    event.remove(db.engine, "before_cursor_execute", explain)
    assert "ix_cohort_binding_due" in plans[0]
