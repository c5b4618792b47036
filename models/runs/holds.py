"""Held runs: what a guard compares with, what a person is shown, and the end of a run that nobody decided about."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ScalarSelect, select
from sqlalchemy.orm import Session

from models import audit
from models.errors import ConfigurationError
from models.runs import lifecycle
from models.tables import PushBatch, Snapshot, SyncRun
from models.types import OF_THE_COHORT, BatchState, RunState

ACTOR = "scheduler"


def sizes(session: Session, binding_id: int, *, last: int) -> tuple[int, ...]:
    """The members of the binding's last good runs, the newest first."""
    good = (
        select(SyncRun.members)
        .where(SyncRun.binding_id == binding_id, SyncRun.state.in_((RunState.SUCCEEDED, RunState.PARTIAL)))
        .order_by(SyncRun.id.desc())
        .limit(last)
    )
    return tuple(session.scalars(good))


def reached(session: Session, binding_id: int) -> int:
    """How many members the binding's last run was to reach that had anything acknowledged."""
    found = session.scalar(
        select(SyncRun.members)
        .where(SyncRun.binding_id == binding_id, SyncRun.acknowledged > 0)
        .order_by(SyncRun.id.desc())
        .limit(1)
    )
    return found or 0


def acknowledged_by(session: Session, binding_id: int) -> str | None:
    """The id of the data extension that acknowledged the binding's newest batch."""
    return session.scalar(
        select(PushBatch.data_extension_id)
        .where(PushBatch.binding_id == binding_id, PushBatch.state == BatchState.ACKNOWLEDGED)
        .order_by(PushBatch.id.desc())
        .limit(1)
    )


def pushed_snapshot_at(session: Session, binding_id: int) -> datetime | None:
    """When the snapshot was requested that the binding's last good run pushed, if it was one of the cohort."""
    return session.scalar(
        select(Snapshot.requested_at)
        .join(SyncRun, SyncRun.snapshot_id == Snapshot.id)
        .where(
            SyncRun.binding_id == binding_id,
            SyncRun.state.in_((RunState.SUCCEEDED, RunState.PARTIAL)),
            Snapshot.kind.in_(OF_THE_COHORT),
        )
        .order_by(SyncRun.id.desc())
        .limit(1)
    )


def first_end() -> ScalarSelect[datetime | None]:
    """When the first of the held runs expires."""
    return (
        select(SyncRun.held_until)
        .where(SyncRun.finished_at.is_(None), SyncRun.state == RunState.HELD, SyncRun.held_until.is_not(None))
        .order_by(SyncRun.held_until)
        .limit(1)
        .scalar_subquery()
    )


def expire(session: Session, now: datetime, limit: int) -> int:
    """End the held runs whose time is over, so that they no longer block their bindings; nothing is pushed."""
    over = (
        select(SyncRun)
        .where(SyncRun.finished_at.is_(None), SyncRun.state == RunState.HELD, SyncRun.held_until <= now)
        .order_by(SyncRun.id)
        .limit(limit)
        .with_for_update(of=SyncRun, skip_locked=True)
    )
    runs = session.scalars(over).all()
    for run in runs:
        lifecycle.note_error(run, ConfigurationError("HELD_EXPIRED", binding=run.binding.name))
        lifecycle.finish(session, run, RunState.CANCELLED, now=now)
        audit.record(
            session,
            now=now,
            actor=ACTOR,
            action="expire",
            kind="run",
            name=str(run.id),
            binding_id=run.binding_id,
            binding=run.binding.name,
        )
    return len(runs)
