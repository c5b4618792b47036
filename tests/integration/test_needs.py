"""What needs a person is a fact of the moment, read from the rows that have something; what mends itself says so."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from models.database import Database
from models.errors import SyncError, TerminalError, TransientError
from models.naming import find
from models.observability import alerts
from models.observability.alerts import NAMED, Alert
from models.runs import claims, completion, decisions, lifecycle, retries
from models.setup import bindings
from models.tables import CohortBinding, NoticeChannel
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AWAY = TransientError("MC_UNAVAILABLE")


@pytest.fixture
def filled(db: Database) -> Database:
    make_source(db)
    make_destination(db, client_secret_made_on=NOW.date())
    make_binding(db, "buyers", timing=bindings.Timing("0 * * * *", "UTC", NOW + MINUTE, NOW + MINUTE))
    return db


def look(db: Database, now: datetime = NOW, schedulers: int | None = 1) -> list[Alert]:
    with db.read() as session:
        return alerts.current(session, now, schedulers=schedulers)


def codes(db: Database, now: datetime = NOW) -> list[tuple[str, bool]]:
    return [(need.code, need.final) for need in look(db, now)]


def begin(db: Database, trigger: Trigger = Trigger.SCHEDULE, at: datetime = NOW) -> int:
    with db.write() as session:
        buyers = find(session, CohortBinding, "buyers")
        return lifecycle.dispatch(session, buyers, trigger=trigger, scheduled_for=at, now=at, actor="test").id


def end(
    db: Database, run_id: int, state: RunState, error: SyncError | None = None, retry_runs: int = 3
) -> None:
    held = claims.claim(db, run_id, Stage.SNAPSHOT, now=NOW, lease=60)
    assert held is not None
    with claims.fenced(db, held, now=NOW, lease=60) as (session, run):
        lifecycle.note_error(run, error)
        lifecycle.finish(session, run, state, now=NOW)
        if error is not None:
            policy = completion.Policy(retry_runs, 0)
            completion.after_failure(session, run, error, policy, delay=600, now=NOW)


def test_a_failure_that_is_retried_is_shown_and_not_final_until_its_last_retry_has_failed(
    filled: Database,
) -> None:
    end(filled, begin(filled), RunState.FAILED, AWAY)
    (need,) = look(filled)
    assert (need.code, need.final) == ("MC_UNAVAILABLE", False)
    assert need.message.endswith("Another run follows at 2026-03-02 12:10 UTC.")
    due = NOW + 10 * MINUTE
    with filled.write() as session:
        session.execute(update(CohortBinding).values(next_due_at=due + 60 * MINUTE))
        assert retries.start(session, due, 10) == 1
    (need,) = look(filled, due)
    assert (need.final, need.message.split(". ")[-1]) == (False, "Run 2 tries again.")
    end(filled, 2, RunState.FAILED, AWAY, retry_runs=1)
    assert codes(filled, due) == [("MC_UNAVAILABLE", True)]


def test_a_retry_that_nobody_makes_is_no_hope(filled: Database) -> None:
    end(filled, begin(filled), RunState.FAILED, AWAY)
    late = NOW + 16 * MINUTE
    with filled.write() as session:
        session.execute(update(CohortBinding).values(next_due_at=late))
    assert codes(filled, late) == [("MC_UNAVAILABLE", True)]


@pytest.mark.parametrize("after", [RunState.SUCCEEDED, RunState.CANCELLED])
def test_the_run_after_a_bad_one_takes_its_place_and_a_skipped_one_does_not(
    filled: Database, after: RunState
) -> None:
    end(
        filled,
        begin(filled, Trigger.MANUAL),
        RunState.FAILED,
        TerminalError("MC_SCOPES", missing="email_read"),
    )
    assert codes(filled) == [("MC_SCOPES", True)]
    end(filled, begin(filled, Trigger.MANUAL, NOW + MINUTE), RunState.SKIPPED)
    assert codes(filled) == [("MC_SCOPES", True)]
    end(filled, begin(filled, Trigger.MANUAL, NOW + 2 * MINUTE), RunState.PARTIAL)
    assert codes(filled) == [("ROWS_REJECTED", True)]
    end(filled, begin(filled, Trigger.MANUAL, NOW + 3 * MINUTE), after)
    assert codes(filled) == []


def test_a_need_is_known_by_what_it_is_about_not_by_its_name(filled: Database) -> None:
    end(
        filled,
        begin(filled, Trigger.MANUAL),
        RunState.FAILED,
        TerminalError("MC_SCOPES", missing="email_read"),
    )
    (before,) = look(filled)
    with filled.write() as session:
        bindings.update_binding(session, "buyers", new_name="shoppers", now=NOW, actor="test")
    (after,) = look(filled)
    assert (before.about, after.about) == ("buyers", "shoppers")
    assert before.key == after.key == ("binding", 1, "MC_SCOPES")


def test_another_held_run_is_another_need(filled: Database) -> None:
    keys = set()
    for minute in range(2):
        run_id = begin(filled, Trigger.MANUAL, NOW + minute * MINUTE)
        held = claims.claim(filled, run_id, Stage.SNAPSHOT, now=NOW, lease=60)
        assert held is not None
        with claims.fenced(filled, held, now=NOW, lease=60) as (_, run):
            lifecycle.hold(run, TerminalError("EMPTY_GUARD", members=5, run=run.id))
        (need,) = look(filled)
        assert (need.about, need.code) == ("buyers", "EMPTY_GUARD")
        keys.add(need.key)
        with filled.write() as session:
            decisions.reject(session, run_id, now=NOW, actor="test")
    assert len(keys) == 2


def test_a_queue_that_is_away_and_a_channel_that_refuses(filled: Database) -> None:
    assert [need.code for need in look(filled, schedulers=None)] == ["BROKER_UNREACHABLE"]
    with filled.write() as session:
        session.add(NoticeChannel(digest="x", name="slack://", failing_since=NOW - 20 * MINUTE))
        session.add(NoticeChannel(digest="y", name="json://here", failing_since=NOW - MINUTE))
    (need,) = look(filled)
    assert (need.code, need.about) == ("NOTIFY_FAILED", "notifications")
    assert "slack:// since 2026-03-02 11:40 UTC" in need.message


def test_of_very_many_overdue_bindings_the_oldest_are_named_and_all_are_counted(filled: Database) -> None:
    with filled.write() as session:
        buyers = dict(session.execute(select(CohortBinding.__table__)).mappings().one())
        for number in range(NAMED):
            due = NOW - timedelta(hours=1, seconds=number)
            name = {"name": f"b{number}", "name_key": f"b{number}", "attribute_key": f"b{number}"}
            session.execute(
                insert(CohortBinding.__table__).values(buyers | name | {"id": number + 2, "next_due_at": due})
            )
    assert {code for code, _ in codes(filled)} == {"OVERDUE"}
    later = look(filled, NOW + timedelta(hours=1))
    assert Counter(need.code for need in later) == {"OVERDUE": NAMED, "SCHEDULER_BEHIND": 1}
    assert "1,001 bindings are overdue" in later[0].message
    assert "buyers" not in {need.about for need in later}, "it is the last that was due"
