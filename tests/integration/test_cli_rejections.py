"""Refused rows by reason, and who was shown whose keys."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from models.database import Database
from models.runs import batches, claims, lifecycle, rejections
from models.runs.rejections import RejectedRow
from models.tables import AuditEvent, CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door

NOW = datetime.now(UTC)
KEY = "ann@example.com"
BAD = '=HYPERLINK("x"),\n2'


@pytest.fixture
def door(sqlite_db: Database, tmp_path: Path) -> Door:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    binding = make_binding(sqlite_db, "vips", cohort_id="c7")
    with sqlite_db.write() as session:
        given = {"trigger": Trigger.MANUAL, "scheduled_for": NOW, "now": NOW, "actor": "test"}
        run = lifecycle.dispatch(session, session.get_one(CohortBinding, binding.id), **given)
        run_id = run.id
    held = claims.claim(sqlite_db, run_id, Stage.SNAPSHOT, now=NOW, lease=60, worker="worker-1@here")
    assert held is not None
    with claims.fenced(sqlite_db, held, now=NOW + timedelta(seconds=5), lease=60) as (session, run):
        batches.adopt(session, run, [(3, b"")], data_extension_id="d", now=NOW)
        rows = [RejectedRow.of(key, 10, f"{key} is no address") for key in (KEY, BAD)]
        rejections.record(session, run, "enter", rows, NOW)
        rejections.record(session, run, "exit", [RejectedRow.of("bob", "x y", "Gone")], NOW)
        run.rejected = 3
        lifecycle.finish(session, run, RunState.PARTIAL, now=NOW + timedelta(seconds=5))
    return Door(sqlite_db.settings, tmp_path)


def shown(db: Database) -> list[tuple[str, str, dict[str, object]]]:
    with db.read() as session:
        found = session.scalars(select(AuditEvent).where(AuditEvent.action == "show keys"))
        return [(event.kind, event.name, event.details) for event in found]


def test_rows_are_masked_unless_keys_are_asked_for_which_the_audit_log_says(
    door: Door, sqlite_db: Database
) -> None:
    for options in ((), ("--csv",), ("--json",)):
        said = door.ok("rejections", "vips", *options)
        assert "an…" in said.out
        assert KEY not in said.out
        assert "bob" not in said.out
    assert shown(sqlite_db) == []
    rows = list(csv.DictReader(io.StringIO(door.ok("rejections", "latest", "--csv", "--show-keys").out)))
    assert {row["key"] for row in rows} == {KEY, BAD, "bob"}
    assert {(row["direction"], row["count"]) for row in rows} == {("enter", "1"), ("exit", "1")}
    assert all(row["first_seen"].endswith("Z") for row in rows)
    assert shown(sqlite_db) == [("binding", "vips", {"command": "rejections", "run": 1})]
    assert door("rejections", "vips", "--csv", "--json").code == 2


def test_a_run_without_refused_rows_says_so(door: Door, sqlite_db: Database) -> None:
    with sqlite_db.write() as session:
        session.get_one(SyncRun, 1).rejected = 0
        session.execute(rejections.delete(rejections.Rejection))
    assert door.ok("rejections", "1").out == "No row of run 1 was refused.\n"
    assert (
        door.ok("rejections", "1", "--csv").out == "direction,code,message,key,first_seen,last_seen,count\n"
    )


def test_a_run_is_shown_with_its_timeline_batches_and_reasons(door: Door) -> None:
    said = door.ok("show", "vips").out
    lines = {line.split("  ")[0]: line for line in said.splitlines() if line}
    assert lines["cohort"].endswith("c7")
    assert lines["batches"].endswith("1: 1 acknowledged")
    assert lines["snapshot"].split() == ["snapshot", f"{NOW:%H:%M:%S}", "5", "s", "-", "worker-1@here"]
    assert "rejected  2 enter, 10: " in said
    told = door.ok("show", "vips", "--json").json
    assert told["batches"] == {"acknowledged": 1}
    assert told["cohort"] == "c7"
    assert [(step["stage"], step["worked_seconds"]) for step in told["timeline"]] == [("snapshot", 5.0)]
    assert {(one["direction"], one["rows"]) for one in told["rejections"]} == {("enter", 2), ("exit", 1)}
