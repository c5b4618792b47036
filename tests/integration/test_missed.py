"""Occurrences that no run was made for: each is counted in exactly one row, and nothing else is; on both databases.

How many there are is held by `tests/unit/test_policy.py`, a week of downtimes by `tests/faults/test_schedulers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cli.config_file import timing
from models.database import Database
from models.observability import overview
from models.runs import claims, lifecycle
from models.runs.missed import COUNTED
from models.setup.bindings import Timing, pause_binding, resume_binding, update_binding
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from scheduler.tick import tick
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door

ONE = datetime(2026, 3, 2, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LATER = ONE + 4.5 * HOUR

Make = Callable[..., CohortBinding]


@pytest.fixture
def hourly(db: Database) -> Make:
    """Make a binding that is due every hour, first at one o'clock on 2 March; no run is caught up."""
    make_source(db)
    make_destination(db)

    def make(**given: Any) -> CohortBinding:
        values = {"cron": "0 * * * *", "catchup": "none", "next_occurrence": ONE, "next_due_at": ONE, **given}
        return make_binding(db, timing=Timing(**values))

    return make


def rows(db: Database) -> list[SyncRun]:
    with db.read() as session:
        return list(session.scalars(select(SyncRun).order_by(SyncRun.id)))


def reload(db: Database, binding: CohortBinding) -> CohortBinding:
    with db.read() as session:
        return session.get_one(CohortBinding, binding.id)


def end(db: Database, run: SyncRun, state: RunState, now: datetime) -> None:
    held = claims.claim(db, run.id, Stage.SNAPSHOT, now=now, lease=60)
    assert held is not None
    with claims.fenced(db, held, now=now, lease=60) as (session, mine):
        lifecycle.finish(session, mine, state, now=now)


def update(db: Database, binding: CohortBinding, now: datetime, **changed: Any) -> None:
    """As `binding update` does."""
    planned = timing.updated(binding, now, **changed)
    with db.write() as session:
        update_binding(session, binding.name, timing=planned, now=now, actor="test")


# --- what the row is, and is not ----------------------------------------------------------------------------


def test_run_that_an_overlap_skips_counts_what_was_missed_before_it(db: Database, hourly: Make) -> None:
    hourly(catchup="latest")
    tick(db, ONE)
    tick(db, LATER)
    run = rows(db)[1]
    assert (run.state, run.error_code) == (RunState.SKIPPED, "OVERLAP_SKIPPED")
    assert (run.scheduled_for, run.missed, run.missed_since) == (ONE + 4 * HOUR, 3, ONE + HOUR)


def test_what_was_missed_waits_behind_no_run(db: Database, hourly: Make) -> None:
    hourly(overlap="queue")
    tick(db, ONE)
    tick(db, LATER)
    late = rows(db)[1]
    assert (late.state, late.error_code, late.missed) == (RunState.SKIPPED, "OCCURRENCES_MISSED", 4)


@pytest.mark.parametrize(("missed", "said"), [(COUNTED, "1,000"), (COUNTED + 1, "more than 1,000")])
def test_a_long_downtime_is_said_to_be_longer_than_was_counted(
    db: Database, hourly: Make, missed: int, said: str
) -> None:
    hourly()
    tick(db, ONE + (missed - 0.5) * HOUR)
    (late,) = rows(db)
    assert f"ran: {said}, the first at 2026-03-02 01:00 UTC." in (late.error_message or "")
    assert (late.missed, late.scheduled_for) == (missed, ONE + (missed - 1) * HOUR)


def test_missed_row_is_no_result_no_failure_and_no_reason_for_another_run(db: Database, hourly: Make) -> None:
    first = hourly()
    make_binding(db, after=first.name)
    tick(db, ONE)
    end(db, rows(db)[0], RunState.FAILED, ONE)
    tick(db, LATER)
    failed, late = rows(db)
    assert (late.error_code, late.trigger, late.retry_at) == ("OCCURRENCES_MISSED", Trigger.SCHEDULE, None)
    assert reload(db, first).failures_in_row == 1
    with db.read() as session:
        assert [run.id for run in overview.last_results(session).values()] == [failed.id]
        assert overview.unfinished(session) == {}
    assert not tick(db, LATER + timedelta(minutes=20)).anything
    assert len(rows(db)) == 2, "neither a retry nor a follower"


def test_any_number_of_schedulers_count_an_occurrence_once(db: Database, hourly: Make) -> None:
    made = [hourly(catchup=catchup).id for catchup in ("none", "latest") for _ in range(10)]
    others = [Database(db.settings) for _ in range(4)]
    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(lambda other: tick(other, LATER, limit=5), others * 3))
    for other in others:
        other.dispose()
    while tick(db, LATER).bindings:
        pass
    assert sorted(run.binding_id for run in rows(db)) == made
    assert {(run.state, run.missed, run.missed_since) for run in rows(db)} == {
        (RunState.SKIPPED, 5, ONE),
        (RunState.QUEUED, 4, ONE),
    }


# --- what is never missed -----------------------------------------------------------------------------------


def test_paused_time_is_not_missed(db: Database, hourly: Make) -> None:
    binding = hourly()
    with db.write() as session:
        pause_binding(session, binding.name, reason="holidays", now=ONE - HOUR, actor="test")
    tick(db, LATER)
    with db.write() as session:
        planned = timing.timing_of(binding, LATER)
        resume_binding(session, binding.name, timing=planned, now=LATER, actor="test")
    tick(db, LATER)
    tick(db, ONE + 5 * HOUR)
    assert [(run.scheduled_for, run.missed) for run in rows(db)] == [(ONE + 5 * HOUR, 0)]


@pytest.mark.parametrize(("down", "missed"), [(0, 0), (2.5, 3)])
def test_time_before_the_first_day_is_not_missed(
    db: Database, hourly: Make, down: float, missed: int
) -> None:
    begin = ONE + 23 * HOUR
    update(db, hourly(), ONE - HOUR, starts_on=begin.date())
    tick(db, begin + down * HOUR)
    (run,) = rows(db)
    assert (run.missed, run.missed_since) == (missed, begin if missed else None)


def test_what_a_changed_cron_names_was_not_missed_before_it_was_asked_for(db: Database, hourly: Make) -> None:
    update(db, hourly(), LATER, cron="*/10 * * * *")
    tick(db, LATER + timedelta(minutes=10))
    assert [(run.scheduled_for, run.missed) for run in rows(db)] == [(LATER + timedelta(minutes=10), 0)]


def test_a_longer_window_that_is_given_during_a_downtime_catches_up(db: Database, hourly: Make) -> None:
    update(db, hourly(), LATER, catchup="latest", catchup_window_seconds=3600)
    tick(db, LATER)
    (run,) = rows(db)
    assert (run.state, run.scheduled_for, run.missed) == (RunState.QUEUED, ONE + 4 * HOUR, 4)


# --- where a person looks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_runs_show_and_status_say_what_was_missed(db: Database, hourly: Make, tmp_path: Path) -> None:
    door = Door(db.settings, tmp_path)
    binding = hourly(catchup="latest")
    tick(db, ONE)
    end(db, rows(db)[0], RunState.SUCCEEDED, ONE)
    tick(db, LATER)
    end(db, rows(db)[1], RunState.SUCCEEDED, LATER)
    door.ok("binding", "update", binding.name, "--catchup", "none")
    tick(db, LATER + 2 * COUNTED * HOUR)

    late, caught_up, plain = door.ok("runs", "--json").json
    assert (late["state"], late["error"]["code"]) == ("skipped", "OCCURRENCES_MISSED")
    assert f"`cohort-sync run '{binding.name}'`" in late["error"]["remedy"]
    assert late["missed"] == {"count": COUNTED, "more": True, "since": "2026-03-02T06:00:00.000Z"}
    assert caught_up["missed"] == {"count": 3, "more": False, "since": "2026-03-02T02:00:00.000Z"}
    assert plain["missed"] is None
    table = door.ok("runs").out
    assert "more than 1,000  OCCURRENCES_MISSED" in table
    assert "3, the first at 2026-03-02 02:00 UTC" in door.ok("show", "2").out
    assert "ran: more than 1,000, the first at 2026-03-02 06:00 UTC." in door.ok("show", "3").out
    (shown,) = door.ok("status", "--json").json["bindings"]
    assert shown["last_run"]["id"] == caught_up["id"]
