"""Runs at the door: made once, published after the commit, followed to their end, looked at, stopped.

No worker runs here: a test does to the run row what a worker would, so that every end can be had.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from cli import context, exit_codes
from cli.commands.runs import wait
from config.settings import Settings
from models.database import Database
from models.direction import Direction
from models.errors import ConfigurationError, TransientError
from models.runs import claims, decisions, lifecycle
from models.runs.batches import acknowledge, plan
from models.runs.rejections import RejectedRow
from models.tables import Snapshot, SnapshotPart, SyncRun
from models.types import BatchState, RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door, ended
from tests.support import Valkey, wait_until

COUNTS = {
    *("snapshot_rows", "members", "blank", "duplicate", "odd", "spanned", "entered", "exited", "spared"),
    *("acknowledged", "rejected"),
}
KEYS = {
    "held",
    "held_until",
    *("id", "binding", "trigger", "actor", "state", "stage", "scheduled_for", "started_at", "finished_at"),
    *("full", "missed", "counts", "odd_examples", "requests", "error"),
}


@pytest.fixture
def settings_with_queue(sqlite_db: Database, valkey: Valkey) -> Settings:
    return sqlite_db.settings.model_copy(update={"redis_url": valkey.url})


@pytest.fixture
def door(settings_with_queue: Settings, tmp_path: Path) -> Door:
    return Door(settings_with_queue, tmp_path)


@pytest.fixture
def bound(sqlite_db: Database) -> Database:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, "vips")
    return sqlite_db


def now() -> datetime:
    return datetime.now(UTC)


def take(db: Database, run_id: int, stage: Stage = Stage.SNAPSHOT) -> claims.Claim:
    held = claims.claim(db, run_id, stage, now=now(), lease=60)
    assert held is not None
    return held


def end(db: Database, run_id: int, state: RunState, **values: Any) -> None:
    """End a run as a worker would."""
    with claims.fenced(db, take(db, run_id), now=now(), lease=60) as (session, run):
        for name, value in values.items():
            setattr(run, name, value)
        if state is RunState.HELD:
            lifecycle.hold(run, ConfigurationError("EMPTY_GUARD", members=5, run=run.id))
            return
        if state is RunState.FAILED:
            lifecycle.note_error(run, ConfigurationError("MC_SCOPES", missing="data_extensions_write"))
        lifecycle.finish(session, run, state, now=now())


def test_a_run_is_made_once_and_published_after_the_commit(
    door: Door, bound: Database, valkey: Valkey
) -> None:
    made = door.ok("run", "VIPS", "--idempotency-key", "monday", "--json").json
    assert set(made) == KEYS
    assert set(made["counts"]) == COUNTS
    assert made["requests"] == {"amplitude": 0, "marketing_cloud": 0}
    assert (made["binding"], made["trigger"], made["state"]) == ("vips", "manual", "queued")
    assert (made["stage"], made["started_at"], made["error"]) == ("snapshot", None, None)
    assert made["scheduled_for"].endswith("Z")
    assert valkey.messages() == [("sync.snapshot", made["id"])]

    said = door("run", "vips", "--json")
    assert (said.code, said.error) == (2, "RUN_UNFINISHED")
    end(bound, made["id"], RunState.SUCCEEDED, members=7)
    again = door.ok("run", "vips", "--idempotency-key", "monday", "--wait", "--json").json
    assert (again["id"], again["state"], again["counts"]["members"]) == (made["id"], "succeeded", 7)
    assert len(valkey.messages()) == 1
    assert door.ok("runs", "vips", "--json").json == [again]
    shown = door.ok("show", str(made["id"]), "--json").json
    assert shown.items() >= again.items()


def test_without_a_queue_the_run_waits_in_the_database(bound: Database, tmp_path: Path) -> None:
    said = Door(bound.settings, tmp_path).ok("run", "vips")
    assert "warning BROKER_UNREACHABLE" in said.err
    assert "is queued" in said.out
    with bound.read() as session:
        assert [run.state for run in session.scalars(select(SyncRun))] == ["queued"]


def test_a_cohort_file_is_checked_at_the_door_and_stored_with_its_run(
    door: Door, bound: Database, tmp_path: Path, valkey: Valkey
) -> None:
    (tmp_path / "wrong.csv").write_text("email\na@example.org\n")
    said = door("run", "vips", "--snapshot", "wrong.csv", "--json")
    assert (said.code, said.error) == (2, "SNAPSHOT_COLUMN_MISSING")
    assert door("run", "vips", "--snapshot", "nowhere.csv").code == 2
    with bound.read() as session:
        assert session.scalar(select(func.count()).select_from(SyncRun)) == 0
        assert session.scalar(select(func.count()).select_from(Snapshot)) == 0
    assert valkey.messages() == []

    (tmp_path / "right.csv").write_text("user_id\nann\nbob\n")
    for _ in range(2):  # repeated with its key it makes nothing new
        made = door.ok("run", "vips", "--snapshot", "right.csv", "--idempotency-key", "once", "--json").json
    with bound.read() as session:
        assert session.scalars(select(SnapshotPart.data)).all() == [b"user_id\nann\nbob\n"]
        stored = session.get_one(SyncRun, made["id"]).snapshot
        assert stored is not None
        assert (stored.kind, stored.property) == ("upload", "user_id")


def test_waiting_ends_with_the_runs_own_code(door: Door, bound: Database) -> None:
    ends = {
        RunState.SUCCEEDED: exit_codes.Code.DONE,
        RunState.PARTIAL: exit_codes.Code.PARTIAL,
        RunState.FAILED: exit_codes.Code.FAILED,
        RunState.CANCELLED: exit_codes.Code.FAILED,
        RunState.HELD: exit_codes.Code.HELD,
    }
    started: dict[RunState, subprocess.Popen[str]] = {}
    for state in ends:
        make_binding(bound, f"to be {state}")
        started[state] = door.start("run", f"to be {state}", "--wait", "--json")
    for state, process in started.items():
        run = wait_until(lambda name=f"to be {state}": _run_of(bound, name), seconds=20)
        end(bound, run.id, state, members=3)
        with process:
            said = ended(process)
        assert (said.code, said.json["state"], said.json["counts"]["members"]) == (ends[state], state, 3)
        assert f"run {run.id} {state}" in said.err
        assert "Traceback" not in said.err
    held = door.ok("runs", "to be held", "--json").json[0]
    assert held["error"]["code"] == "EMPTY_GUARD"
    assert f"cohort-sync approve {held['id']}" in held["error"]["remedy"]


def _run_of(db: Database, name: str) -> SyncRun | None:
    with db.read() as session:
        return next((run for run in session.scalars(select(SyncRun)) if run.binding.name == name), None)


def test_ctrl_c_leaves_the_waiting_and_not_the_run(door: Door, bound: Database) -> None:
    with door.start("run", "vips", "--wait", start_new_session=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("run ")  # it waits
        process.send_signal(signal.SIGINT)
        said = ended(process)
    assert (said.code, said.out) == (130, "")
    run = _run_of(bound, "vips")
    assert run is not None
    assert [line for line in said.err.splitlines() if not line.startswith("run ")] == [
        f"Run {run.id} continues. Follow it again: `cohort-sync watch {run.id}`."
    ]
    assert run.state == "queued"


def test_a_held_run_is_approved_or_rejected(door: Door, bound: Database, valkey: Valkey) -> None:
    first = _dispatched(bound, "vips")
    said = door("approve", str(first), "--json")
    assert (said.code, said.error) == (2, "RUN_STATE")
    end(bound, first, RunState.HELD)
    assert door.ok("approve", str(first), "--json").json["state"] == "queued"
    assert valkey.messages() == [("sync.snapshot", first)]
    end(bound, first, RunState.SUCCEEDED)

    second = _dispatched(bound, "vips")
    end(bound, second, RunState.HELD)
    rejected = door.ok("reject", str(second), "--json").json
    assert (rejected["state"], rejected["error"]["code"]) == ("cancelled", "HELD_REJECTED")
    assert "vips" in rejected["error"]["remedy"]


def test_cancelling_says_whether_it_is_over(door: Door, bound: Database) -> None:
    queued = _dispatched(bound, "vips")
    assert "is cancelled" in door.ok("cancel", str(queued)).out
    assert door("cancel", str(queued), "--json").error == "RUN_STATE"
    running = _dispatched(bound, "vips")
    take(bound, running)
    assert "ends after what it has sent" in door.ok("cancel", str(running)).out
    with bound.read() as session:
        assert decisions.get_run(session, running).cancel_requested


def test_a_run_is_shown_with_its_reasons_and_without_a_key(door: Door, bound: Database) -> None:
    run_id = _dispatched(bound, "vips")
    with claims.fenced(bound, take(bound, run_id), now=now(), lease=60) as (session, run):
        plan(session, run, [(Direction.ENTER, 3, b"...")], data_extension_id="de")
        session.flush()
        batch = session.scalars(select(lifecycle.SyncRun.id)).one()
        run.entered = 1_234_567
        rows = [
            RejectedRow(f"ann{n}@example.org", f"ann{n}@example.org", "7", "No such domain") for n in (1, 2)
        ]
        acknowledge(session, run, _batch_of(session, batch), accepted=(1, b"."), rejected=rows, now=now())
    said = door.ok("show", str(run_id)).out
    assert "rejected  2 enter, 7: No such domain" in said
    assert "1,234,567" in said
    assert "example.org" not in said


def _batch_of(session: Any, run_id: int) -> int:
    from models.tables import PushBatch

    batch: PushBatch = session.scalars(select(PushBatch).where(PushBatch.run_id == run_id)).one()
    batch.state = BatchState.SUBMITTED
    return batch.id


def _dispatched(db: Database, name: str) -> int:
    from models.naming import find
    from models.tables import CohortBinding

    with db.write() as session:
        return lifecycle.dispatch(
            session,
            find(session, CohortBinding, name),
            trigger=Trigger.MANUAL,
            scheduled_for=now(),
            now=now(),
            actor="test",
        ).id


def test_progress_in_words_and_a_word_when_nobody_takes_the_run(
    bound: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wait, "UNCLAIMED_SECONDS", 0.0)
    run_id = _dispatched(bound, "vips")
    watch = wait._Poller(bound, run_id)
    assert str(watch.look()[1]) == "queued"
    watch.look()
    assert capsys.readouterr().err.count("no worker seems to be running") == 1

    with claims.fenced(bound, take(bound, run_id), now=now(), lease=60) as (session, run):
        plan(session, run, [(Direction.ENTER, 2, b"..")] * 3, data_extension_id="de")
        run.stage, run.acknowledged = Stage.PUSH, 2
        session.flush()
        acknowledge(session, run, _first_batch(session), now=now())
        lifecycle.note_error(run, TransientError("MC_UNAVAILABLE", "It answered 503."))
        lifecycle.wait(run, now().replace(year=2999))
    words = str(watch.look()[1])
    assert words.startswith("push: 1 of 3 batches, 4 rows acknowledged; waiting: MC_UNAVAILABLE")
    assert "503" in words
    assert "again at" in words


def _first_batch(session: Any) -> int:
    from models.tables import PushBatch

    batch: PushBatch = session.scalars(select(PushBatch).order_by(PushBatch.seq)).first()
    return batch.id


def test_who_did_it_has_a_name_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    context.actor.cache_clear()
    monkeypatch.setenv("USER", "somebody else")
    monkeypatch.delenv("SUDO_USER", raising=False)
    mine = pwd.getpwuid(os.getuid()).pw_name
    assert context.actor() == mine, "not what a variable says"
    context.actor.cache_clear()
    monkeypatch.setenv("SUDO_USER", "ann")
    assert context.actor() == f"ann as {mine}"
    context.actor.cache_clear()
    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("uid")))
    assert context.actor() == f"uid {os.getuid()}"
    context.actor.cache_clear()
