"""Retries: runs that follow a failed one of a scheduled binding, made by the scheduler when their time has come.

A retry is a run of its own with its own `scheduled_for` (when it was due), and names the first run of its
occurrence in `retry_of`: UNIQUE(retry_of, retry) is why it is made once, whoever inserts it. It takes the failed
run's download along, because a retry must not cost another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import BindParameter, ColumnElement, RowMapping, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from models.database import bound_locks, bulk
from models.runs import new_runs
from models.tables import AmplitudeProject, CohortBinding, Snapshot, SyncRun
from models.types import RunState, SnapshotKind, SnapshotState, Tier, Trigger

KEPT = timedelta(days=6)  # Amplitude keeps a requested cohort for seven


def due(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Whether a failed run's retry is due."""
    return exists().where(SyncRun.retry_at.is_not(None), SyncRun.retry_at <= now)


def start(session: Session, now: datetime, limit: int) -> int:
    """Make the retries that are due; how many.

    None is made where a newer run has begun, or where the binding is paused or no longer scheduled.
    """
    bound_locks(session)
    failed = _due(session, now, limit)
    wanted = [row for row in failed if row["wanted"]]
    made = _insert(session, wanted, now)
    forget(session, [row["id"] for row in failed])
    return made


def forget(session: Session, runs: Sequence[int]) -> None:
    """These runs get no retry any more."""
    session.execute(
        update(SyncRun)
        .where(SyncRun.id.in_(runs))
        .values(retry_at=None)
        .execution_options(synchronize_session=False)
    )


def forget_of(session: Session, binding_id: int) -> None:
    """Nothing that has failed until now is retried by itself."""
    session.execute(
        update(SyncRun)
        .where(SyncRun.binding_id == binding_id, SyncRun.retry_at.is_not(None))
        .values(retry_at=None)
        .execution_options(synchronize_session=False)
    )


def _due(session: Session, now: datetime, limit: int) -> Sequence[RowMapping]:
    newer = aliased(SyncRun)
    superseded = exists().where(
        newer.binding_id == SyncRun.binding_id, newer.id > SyncRun.id, newer.state != RunState.SKIPPED
    )
    scheduled = or_(CohortBinding.cron.is_not(None), CohortBinding.after_id.is_not(None))
    usable = and_(
        Snapshot.kind == SnapshotKind.DOWNLOAD,
        Snapshot.state.in_((SnapshotState.REQUESTED, SnapshotState.COMPLETED)),
        Snapshot.requested_at > now - KEPT,
    )
    return (
        session.execute(
            select(
                SyncRun.id,
                SyncRun.binding_id,
                SyncRun.retry_at,
                (SyncRun.retry + 1).label("retry"),
                func.coalesce(SyncRun.retry_of, SyncRun.id).label("retry_of"),
                case((usable, SyncRun.snapshot_id)).label("snapshot_id"),
                and_(
                    ~superseded, scheduled, ~CohortBinding.paused, AmplitudeProject.tier == Tier.AUDIENCES
                ).label("wanted"),
            )
            .join(CohortBinding, SyncRun.binding_id == CohortBinding.id)
            .join(AmplitudeProject, CohortBinding.project_id == AmplitudeProject.id)
            .outerjoin(Snapshot, SyncRun.snapshot_id == Snapshot.id)
            .where(SyncRun.retry_at <= now)
            .order_by(SyncRun.retry_at)
            .limit(limit)
            .with_for_update(of=SyncRun, skip_locked=True)
        )
        .mappings()
        .all()
    )


def _insert(session: Session, wanted: Sequence[RowMapping], now: datetime) -> int:
    rows = [
        new_runs.row(
            row["binding_id"], Trigger.RETRY, RunState.QUEUED, scheduled_for=row["retry_at"], now=now
        )
        | {"retry": row["retry"], "retry_of": row["retry_of"], "snapshot_id": row["snapshot_id"]}
        for row in wanted
    ]
    return len(bulk.insert_missing(session, SyncRun, rows, "id"))
