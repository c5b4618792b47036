"""A source goes with all that was known of it, and takes nothing along that is another's."""

from __future__ import annotations

import pytest

from models.database import Database
from models.errors import ConfigurationError
from models.runs import lifecycle
from models.setup import bindings, sources
from models.tables import Snapshot, SyncRun
from models.types import RunState, SnapshotState, Trigger
from tests.factories import CREATED, make_binding, make_destination, make_source

BY = {"now": CREATED, "actor": "test"}


def test_a_source_that_was_downloaded_from_can_be_removed(db: Database) -> None:
    old = make_source(db, "old")
    make_source(db, "new")
    make_destination(db)
    gone, stays = (make_binding(db, name, source="old") for name in ("gone", "stays"))
    for binding in (gone, stays):
        with db.write() as session:
            snapshot = Snapshot(
                project_id=old.id,
                cohort_id=binding.cohort_id,
                kind="download",
                property="user_id",
                state=SnapshotState.COMPLETED,
                requested_at=CREATED,
            )
            session.add(snapshot)
            session.flush()
            mine = session.merge(binding)
            run = lifecycle.dispatch(
                session, mine, trigger=Trigger.MANUAL, scheduled_for=CREATED, snapshot_id=snapshot.id, **BY
            )
            run.state, run.finished_at = RunState.CANCELLED, CREATED
    with pytest.raises(ConfigurationError, match="IN_USE"), db.edit() as session:
        sources.remove_source(session, "old", **BY)
    with db.edit() as session:
        bindings.remove_binding(session, "gone", **BY)
        bindings.update_binding(session, "stays", source="new", **BY)
        sources.remove_source(session, "old", **BY)
    with db.read() as session:
        assert session.query(Snapshot).count() == 0
        (run,) = session.query(SyncRun).all()
        assert (run.binding.name, run.binding.project.name, run.snapshot) == ("stays", "new", None)
