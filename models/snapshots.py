"""Snapshots: the ledger of what was downloaded, who may share one, and uploaded cohort files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import BinaryIO

from sqlalchemy import ColumnElement, and_, delete, func, literal_column, select
from sqlalchemy.orm import Session

from models.database import lock
from models.errors import ConfigurationError
from models.tables import AmplitudeProject, CohortBinding, Snapshot, SnapshotPart, SyncRun
from models.types import UNFINISHED, Feed, SnapshotState, Trigger

DOWNLOAD, UPLOAD = "download", "upload"  # and "webhook": models/cohort_lists.py
# A literal: SQLite uses a partial index only if its condition stands in the query word by word.
_DOWNLOAD: ColumnElement[str] = literal_column(f"'{DOWNLOAD}'")
UPLOAD_PART_BYTES = 4 << 20


def shareable(session: Session, run: SyncRun, *, fresh_seconds: float) -> Snapshot | None:
    """A download that serves this run too: requested since the run was due, or, for a scheduled run, a little
    before, as long as this binding has not used it already.
    """
    slack = fresh_seconds if run.trigger in {Trigger.SCHEDULE, Trigger.RETRY} else 0
    used = select(SyncRun.snapshot_id).where(
        SyncRun.binding_id == run.binding_id, SyncRun.id != run.id, SyncRun.snapshot_id.is_not(None)
    )
    return session.scalar(
        select(Snapshot)
        .where(
            Snapshot.project_id == run.binding.project_id,
            Snapshot.cohort_id == run.binding.cohort_id,
            Snapshot.kind == DOWNLOAD,
            Snapshot.property == run.binding.destination.contact_key_property,
            Snapshot.state.in_((SnapshotState.REQUESTED, SnapshotState.COMPLETED)),
            Snapshot.requested_at >= run.scheduled_for - timedelta(seconds=slack),
            Snapshot.id.not_in(used),
        )
        .order_by(Snapshot.id.desc())
        .limit(1)
    )


def join_or_begin(
    session: Session, run: SyncRun, *, now: datetime, fresh_seconds: float, parallel: int
) -> Snapshot | None:
    """Give the run a snapshot: one that may be shared, or a new one, journalled before it is requested.

    None: not now, because another run is requesting this very cohort, or `parallel` jobs of the last minute
    are unfinished already. A new snapshot is in the state REQUESTING and costs one download of the month.
    """
    binding = run.binding
    lock(session, f"snapshot:{binding.project_id}")
    found = shareable(session, run, fresh_seconds=fresh_seconds)
    if found is None:
        recent = session.scalars(
            select(Snapshot).where(
                Snapshot.project_id == binding.project_id,
                Snapshot.state.in_((SnapshotState.REQUESTING, SnapshotState.REQUESTED)),
                Snapshot.requested_at > now - timedelta(minutes=1),
            )
        ).all()
        if len(recent) >= parallel or _being_requested(session, run):
            return None
        spent = spent_this_month(session, binding.project_id, now=now)
        if spent >= binding.project.monthly_quota and not run.force:
            raise ConfigurationError(
                "AMPLITUDE_QUOTA", source=binding.project.name, quota=binding.project.monthly_quota
            )
        found = Snapshot(
            project_id=binding.project_id,
            cohort_id=binding.cohort_id,
            kind=DOWNLOAD,
            property=binding.destination.contact_key_property,
            state=SnapshotState.REQUESTING,
            requested_at=now,
        )
        session.add(found)
        session.flush()
    run.snapshot_id = found.id
    return found


def _being_requested(session: Session, run: SyncRun) -> bool:
    """Whether an unfinished run is asking for this run's cohort just now; its answer may be shared."""
    found = session.scalar(
        select(Snapshot.id)
        .join(SyncRun, SyncRun.snapshot_id == Snapshot.id)
        .where(
            Snapshot.project_id == run.binding.project_id,
            Snapshot.cohort_id == run.binding.cohort_id,
            Snapshot.state == SnapshotState.REQUESTING,
            SyncRun.state.in_(UNFINISHED),
        )
        .limit(1)
    )
    return found is not None


def spent_this_month(session: Session, project_id: int, *, now: datetime) -> int:
    """Downloads of the project since the first of the month, UTC: what our own ledger knows."""
    spent = select(func.count()).where(Snapshot.project_id == project_id, spent_since(month_of(now)))
    return session.scalar(spent) or 0


def spent_since(start: datetime) -> ColumnElement[bool]:
    """The condition for a download that counts against a month's quota."""
    return and_(
        Snapshot.kind == _DOWNLOAD, Snapshot.requested_at >= start, Snapshot.state != SnapshotState.FAILED
    )


def month_of(now: datetime) -> datetime:
    """When the month of `now` began, UTC: a quota is a month's."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def require_quota(session: Session, binding: CohortBinding, *, now: datetime) -> None:
    """Refuse a run by hand that would ask for a download when the month's are spent."""
    if binding.feed == Feed.WEBHOOK:
        return
    spent, allowed = quota(session, binding.project, now=now)
    if spent >= allowed:
        raise ConfigurationError("AMPLITUDE_QUOTA", source=binding.project.name, quota=allowed)


def store_upload(session: Session, binding: CohortBinding, file: BinaryIO, *, now: datetime) -> Snapshot:
    """A cohort file as given, in parts, so that any worker can read it."""
    snapshot = Snapshot(
        project_id=binding.project_id,
        cohort_id=binding.cohort_id,
        kind=UPLOAD,
        property=binding.destination.contact_key_property,
        state=SnapshotState.COMPLETED,
        requested_at=now,
        completed_at=now,
    )
    session.add(snapshot)
    session.flush()
    part = 0
    while data := file.read(UPLOAD_PART_BYTES):
        session.add(SnapshotPart(snapshot_id=snapshot.id, part=part, data=data))
        session.flush()
        part += 1
    return snapshot


def iter_upload(session: Session, snapshot_id: int) -> Iterator[bytes]:
    """The uploaded file, piece by piece."""
    yield from session.scalars(
        select(SnapshotPart.data)
        .where(SnapshotPart.snapshot_id == snapshot_id)
        .order_by(SnapshotPart.part)
        .execution_options(yield_per=1)
    )


def forget_upload(session: Session, snapshot_id: int) -> None:
    """The run has ended: the file is personal data that nobody needs any more."""
    session.execute(delete(SnapshotPart).where(SnapshotPart.snapshot_id == snapshot_id))


def quota(session: Session, source: AmplitudeProject, *, now: datetime) -> tuple[int, int]:
    """(spent, allowed) of this month."""
    return spent_this_month(session, source.id, now=now), source.monthly_quota
