"""What runs leave behind has an end, comes to it in small steps, and what is state stays however old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from models.contact_keys.codec import encode_keys
from models.data_protection import retention
from models.data_protection.retention import Cursor, Retention
from models.database import Database
from models.tables import (
    AuditEvent,
    Base,
    CohortBinding,
    MemberChunk,
    PushBatch,
    Rejection,
    Snapshot,
    SyncRun,
)
from models.types import BatchState, RunState
from scheduler.retention import Broom
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FIRST = datetime(2020, 1, 1, tzinfo=UTC)


def a_run(db: Database, binding: CohortBinding, days: float, **batch: object) -> int:
    """A run that ended so many days ago, with a snapshot, a batch and an event."""
    then = NOW - timedelta(days=days)
    with db.write() as session:
        snapshot = Snapshot(
            project_id=binding.project_id,
            cohort_id=binding.cohort_id,
            kind="download",
            property="user_id",
            state="completed",
            requested_at=then,
        )
        session.add(snapshot)
        session.flush()
        run = SyncRun(
            binding_id=binding.id,
            trigger="manual",
            scheduled_for=then,
            state=RunState.SUCCEEDED,
            created_at=then,
            finished_at=then,
            snapshot_id=snapshot.id,
        )
        session.add(run)
        session.flush()
        if batch:
            given = {"state": BatchState.ACKNOWLEDGED, "direction": "enter", "acknowledged_at": then, **batch}
            keys = encode_keys([f"key-{run.id}"])
            session.add(
                PushBatch(
                    run_id=run.id,
                    binding_id=binding.id,
                    data_extension_id="d",
                    seq=0,
                    n=1,
                    keys=keys,
                    **given,
                )
            )
        session.add(AuditEvent(at=then, actor="x", action="run", kind="binding", name="x", details={}))
        return run.id


@pytest.fixture
def binding(db: Database) -> CohortBinding:
    make_source(db, now=FIRST)
    make_destination(db, now=FIRST)
    return make_binding(db, "vips", now=FIRST)


def swept(db: Database) -> None:
    """One whole pass of a scheduler, a step a tick."""
    broom = Broom()
    for _ in range(1000):
        broom.sweep(db, NOW)
        if broom._cursor is None:
            return
    raise AssertionError("a pass has an end")


def count(db: Database, table: type[Base]) -> int:
    with db.read() as session:
        return len(session.scalars(select(table.__table__.c.id)).all())


def test_what_is_old_goes_and_what_is_needed_stays(
    db: Database, binding: CohortBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCHES_AT_ONCE", 2)
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 2)
    gone = [a_run(db, binding, 900 + n, folded_generation=1) for n in range(7, 0, -1)]
    state = a_run(db, binding, 850)  # before the batches below: it has none, and goes
    held = a_run(db, binding, 840, folded_generation=None)
    old = a_run(db, binding, 500, folded_generation=1)
    dropped = a_run(db, binding, 450, state=BatchState.DROPPED)
    lost = a_run(db, binding, 440, state=BatchState.LOST)
    new = a_run(db, binding, 10, folded_generation=1)
    with db.write() as session:
        for run, days in ((lost, 430), (new, 5)):
            then = NOW - timedelta(days=days)
            session.add(
                Rejection(
                    binding_id=binding.id,
                    run_id=run,
                    direction="enter",
                    code="X",
                    message="x",
                    key=f"k{run}",
                    comparison_key=f"k{run}",
                    first_seen=then,
                    last_seen=then,
                )
            )
    swept(db)
    with db.read() as session:
        assert set(session.scalars(select(SyncRun.id))) == {held, old, dropped, lost, new}
        assert set(session.scalars(select(PushBatch.run_id))) == {held, lost, new}
        assert list(session.scalars(select(Rejection.run_id))) == [new]
        events = session.scalars(select(AuditEvent.at).where(AuditEvent.actor == "x")).all()
    assert len(events) == 4
    assert count(db, Snapshot) == 5
    assert not {*gone, state} & {held, new}
    swept(db)
    assert count(db, SyncRun) == 5, "nothing more goes"


def test_the_newest_run_of_a_binding_stays(db: Database, binding: CohortBinding) -> None:
    run = a_run(db, binding, 2000)
    swept(db)
    with db.read() as session:
        assert list(session.scalars(select(SyncRun.id))) == [run]


def test_zero_days_is_for_ever(sqlite_db: Database) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    binding = make_binding(sqlite_db)
    for days in (3000, 2999):
        a_run(sqlite_db, binding, days, folded_generation=1)
    forever = sqlite_db.settings.model_copy(update={"batch_days": 0, "run_days": 0})
    kept, cursor = Retention.at(forever, NOW), Cursor()
    while cursor is not None:
        with sqlite_db.read() as session:
            found, cursor = retention.look(session, kept, cursor)  # type: ignore[assignment]
        assert found.gone == []


def test_why_and_show_say_what_they_can_no_longer_know(sqlite_db: Database, tmp_path: Path) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    long_ago = datetime.now(UTC) - timedelta(days=500)
    binding = make_binding(sqlite_db, "vips", now=long_ago)
    make_binding(sqlite_db, "young", now=datetime.now(UTC))
    run = a_run(sqlite_db, binding, 490)
    with sqlite_db.write() as session:
        keys = encode_keys(["ann"])
        session.add(MemberChunk(binding_id=binding.id, generation=0, part=0, n=1, keys=keys))
    door = Door(sqlite_db.settings, tmp_path)
    told = door.ok("why", "vips", "ann").out
    assert "in, since before the first run whose batches are kept" in told
    assert "is not kept, so nothing is known of it" in told
    assert "no row of it was ever acknowledged that is known of" in door.ok("why", "vips", "bob").out
    assert door.ok("why", "vips", "bob", "--json").json["known_since"] is not None
    assert door.ok("why", "young", "bob", "--json").json["known_since"] is None
    assert "kept for 400 days" in door.ok("show", str(run)).out
