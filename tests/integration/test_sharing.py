"""One download for the bindings that are due together, whatever moment the first one's answer comes in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event, select, update

from models.database import Database
from models.membership import snapshots
from models.runs import lifecycle
from models.tables import CohortBinding, Snapshot, SyncRun
from models.types import SnapshotKind, SnapshotState, Trigger
from tests.factories import make_binding, make_destination, make_source

NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)
FRESH = snapshots.FreshnessPolicy(300, 3600)


def begin(db: Database, run_id: int) -> tuple[int, str] | None:
    with db.write() as session:
        run = session.get_one(SyncRun, run_id)
        found = snapshots.join_or_begin(session, run, now=NOW, fresh=FRESH, parallel=4)
        return (found.id, found.state) if found else None


def test_an_answer_that_comes_between_two_questions_is_shared(postgres_db: Database) -> None:
    db = postgres_db
    make_source(db)
    make_destination(db)
    made = []
    for _ in range(2):
        binding = make_binding(db, cohort_id="vips")
        with db.write() as session:
            run = lifecycle.dispatch(
                session,
                session.get_one(CohortBinding, binding.id),
                trigger=Trigger.SCHEDULE,
                scheduled_for=NOW,
                now=NOW,
                actor="test",
            )
            made.append(run.id)
    first = begin(db, made[0])
    assert first is not None
    assert first[1] == SnapshotState.REQUESTING
    assert begin(db, made[1]) is None  # wait for it

    other = Database(db.settings)
    asked: list[str] = []

    def answer(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and "FROM snapshot" in statement:
            asked.append(statement)
            if len(asked) == 1:
                with other.write() as session:
                    session.execute(update(Snapshot).values(state=SnapshotState.REQUESTED, request_id="r-1"))

    event.listen(db.engine, "after_cursor_execute", answer)
    second = begin(db, made[1])
    event.remove(db.engine, "after_cursor_execute", answer)
    other.dispose()
    assert len(asked) > 1
    assert second == (first[0], SnapshotState.REQUESTED)
    with db.read() as session:
        assert session.scalars(select(Snapshot.id)).all() == [first[0]]


def test_what_a_job_takes_is_the_shortest_of_its_last_three(db: Database) -> None:
    make_source(db)
    make_destination(db)
    binding = make_binding(db, cohort_id="vips")

    def ended(day: int, seconds: float | None, cohort: str = "vips") -> Snapshot:
        with db.write() as session:
            asked = NOW + timedelta(days=day)
            made = Snapshot(
                project_id=binding.project_id,
                cohort_id=cohort,
                kind=SnapshotKind.DOWNLOAD,
                property="user_id",
                state=SnapshotState.REQUESTED if seconds is None else SnapshotState.COMPLETED,
                requested_at=asked,
                completed_at=None if seconds is None else asked + timedelta(seconds=seconds),
            )
            session.add(made)
        return made

    def usual(of: Snapshot) -> float:
        with db.read() as session:
            return snapshots.usual_seconds(session, of)

    assert usual(ended(0, None)) == 0
    ended(1, 5)
    ended(2, 40)
    ended(2, 1, cohort="others")
    assert usual(ended(3, None)) == 5
    ended(4, 3600)
    ended(5, 30)
    assert usual(ended(6, None)) == 30
