"""The page a person opens first: it says what needs somebody, and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from models import audit
from models.database import Database
from models.errors import ConfigurationError
from models.naming import find
from models.observability.health import HEARTBEATS
from models.runs import claims, lifecycle
from models.setup import bindings
from models.setup.bindings import Timing
from models.tables import CohortBinding, Snapshot
from models.types import RunState, SnapshotKind, SnapshotState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door
from tests.support import Valkey

NOW = datetime.now(UTC)


@pytest.fixture
def door(sqlite_db: Database, valkey: Valkey, tmp_path: Path) -> Door:
    return Door(sqlite_db.settings.model_copy(update={"redis_url": valkey.url}), tmp_path)


def _run(db: Database, name: str, *, created: datetime = NOW) -> int:
    with db.write() as session:
        return lifecycle.dispatch(
            session,
            find(session, CohortBinding, name),
            trigger=Trigger.MANUAL,
            scheduled_for=created,
            now=created,
            actor="test",
        ).id


def _finish(db: Database, run_id: int, state: RunState, *, rejected: int = 0) -> None:
    held = claims.claim(db, run_id, Stage.SNAPSHOT, now=NOW, lease=60)
    assert held is not None
    with claims.fenced(db, held, now=NOW, lease=60) as (session, run):
        run.rejected = rejected
        if state is RunState.HELD:
            lifecycle.hold(run, ConfigurationError("EMPTY_GUARD", members=5, run=run.id))
            return
        if state is RunState.FAILED:
            lifecycle.note_error(run, ConfigurationError("MC_SCOPES", missing="email_read"))
        lifecycle.finish(session, run, state, now=NOW)


def test_an_empty_page_says_how_to_begin(door: Door) -> None:
    said = door.ok("status")
    assert "`cohort-sync source add`" in said.out
    assert "Nothing needs you." in said.out
    assert door.ok("status", "--json").json["needs"] == []


def test_a_binding_that_is_well_needs_nobody(door: Door, sqlite_db: Database, valkey: Valkey) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db, client_secret_made_on=NOW.date())
    due = NOW + timedelta(hours=3, minutes=20)
    make_binding(sqlite_db, "well", timing=Timing("0 6 * * *", "UTC", due, due))
    _finish(sqlite_db, _run(sqlite_db, "well"), RunState.SUCCEEDED)
    valkey.client.set(f"{HEARTBEATS}here:1", NOW.isoformat())
    said = door.ok("status")
    assert "succeeded" in said.out
    assert "(in 3 h)" in said.out
    assert "Nothing needs you." in said.out
    page = door.ok("status", "--json").json
    (one,) = page["bindings"]
    assert (one["name"], one["last_run"]["state"], one["current_run"]) == ("well", "succeeded", None)
    assert one["schedule"]["next_due_at"].endswith("Z")
    assert page["queue"] == {"reachable": True}
    assert page["schedulers"] == {"here:1": NOW.isoformat()}
    assert page["work"]["unclaimed"] == page["work"]["overdue"] == 0
    assert page["sources"] == [{"name": "amplitude", "downloads": {"spent": 0, "quota": 500}}]


def test_everything_that_needs_somebody_is_named_with_what_to_do(door: Door, sqlite_db: Database) -> None:
    make_source(sqlite_db, monthly_quota=1)
    make_destination(sqlite_db, client_secret_made_on=date(2020, 1, 1))
    long_ago = NOW - timedelta(hours=1)
    late = Timing("0 6 * * *", "UTC", long_ago, long_ago)
    for name in ("held", "failed", "partial", "paused", "unclaimed", "skipped"):
        make_binding(sqlite_db, name)
    make_binding(sqlite_db, "overdue", timing=late)
    for state in (RunState.HELD, RunState.FAILED):
        _finish(sqlite_db, _run(sqlite_db, state), state)
    _finish(sqlite_db, _run(sqlite_db, "partial"), RunState.PARTIAL, rejected=1234)
    _finish(sqlite_db, _run(sqlite_db, "skipped"), RunState.SKIPPED)
    _run(sqlite_db, "unclaimed", created=long_ago)
    with sqlite_db.write() as session:
        bindings.pause_binding(session, "paused", reason="5 failures", now=NOW, actor="worker")
        session.add(
            Snapshot(
                project_id=1,
                cohort_id="any",
                kind=SnapshotKind.DOWNLOAD,
                property="user_id",
                state=SnapshotState.COMPLETED,
                requested_at=NOW,
            )
        )

    needs = {(need["about"], need["code"]): need for need in door.ok("status", "--json").json["needs"]}
    assert set(needs) == {
        ("held", "EMPTY_GUARD"),
        ("failed", "MC_SCOPES"),
        ("partial", "ROWS_REJECTED"),
        ("paused", "PAUSED"),
        ("unclaimed", "RUN_UNCLAIMED"),
        ("overdue", "OVERDUE"),
        ("scheduler", "SCHEDULER_SILENT"),
        ("workers", "WORKERS_SILENT"),
        ("marketing", "SECRET_AGE"),
        ("amplitude", "AMPLITUDE_QUOTA"),
    }
    assert "cohort-sync approve 1" in needs["held", "EMPTY_GUARD"]["remedy"]
    assert "5 failures" in needs["paused", "PAUSED"]["message"]
    assert "1,234 rows" in needs["partial", "ROWS_REJECTED"]["message"]
    assert "cohort-sync scheduler" in needs["overdue", "OVERDUE"]["remedy"]
    said = door.ok("status")
    assert all(f"! {about}: {code}" in said.out for about, code in needs)


def test_a_binding_that_a_person_paused_needs_nobody_and_says_why_it_is(
    door: Door, sqlite_db: Database
) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db, client_secret_made_on=NOW.date())
    make_binding(sqlite_db, "buyers")
    with sqlite_db.write() as session, audit.through(audit.CLI):
        bindings.pause_binding(session, "buyers", reason="until the sale is over", now=NOW, actor="ann")
    said = door.ok("status")
    assert "paused: until the sale is over" in said.out
    assert door.ok("status", "--json").json["needs"] == []


def test_a_binding_that_follows_another_says_after_which_one(door: Door, sqlite_db: Database) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, "buyers")
    make_binding(sqlite_db, "vips", after="buyers")
    rows = {line.split()[0]: line for line in door.ok("status").out.splitlines() if line}
    assert rows["vips"].endswith("after buyers")
    assert rows["buyers"].endswith("on demand")


def test_commands_agree_about_a_run_that_a_blackout_puts_off(door: Door, sqlite_db: Database) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    start = (NOW + timedelta(days=1)).replace(hour=3, minute=0, second=0, microsecond=0)
    timing = Timing("0 3 * * *", "UTC", start, start, blackouts="02:00-05:30")
    make_binding(sqlite_db, "buyers", timing=timing)
    expected = f"{start:%Y-%m-%d} 05:30 UTC"
    for command in (("status",), ("binding", "show", "buyers"), ("schedule", "--days", "3")):
        assert expected in door.ok(*command).out


def test_a_queue_that_is_away_is_said_at_once(door: Door, sqlite_db: Database, valkey: Valkey) -> None:
    make_source(sqlite_db)
    valkey.kill()
    page = door.ok("status", "--json").json
    assert page["queue"] == {"reachable": False}
    assert [need["code"] for need in page["needs"]] == ["BROKER_UNREACHABLE"]
