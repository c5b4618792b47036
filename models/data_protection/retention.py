"""How long what runs leave behind is kept, and its removal in steps small enough that nobody waits for one.

A batch that no generation holds yet is state and stays, however old; the end of a run folds it in time. A run stays as
long as its batches do, and the newest of a binding for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session, aliased

from config.settings import Settings
from models.tables import AuditEvent, CohortBinding, PushBatch, Rejection, Snapshot, SyncRun
from models.types import BatchState

BATCHES_AT_ONCE = 50  # of up to 400,000 bytes each
ROWS_AT_ONCE = 500
_SETTLED = (BatchState.DROPPED, BatchState.SUPERSEDED)


@dataclass(frozen=True)
class Retention:
    """From when on is kept what is: batches and rejections, and runs and the audit log. None: for ever."""

    batches: datetime | None
    runs: datetime | None

    @classmethod
    def at(cls, settings: Settings, now: datetime) -> Retention:
        """As it is set up, at this moment."""
        return cls(_ago(now, settings.batch_days), _ago(now, settings.run_days))


@dataclass(frozen=True)
class Cursor:
    """Where a pass stands: which kind of row, and the last id that was looked at."""

    place: int = 0
    after: int = 0


@dataclass(frozen=True)
class Slice:
    """What to remove of the rows that were looked at; `last` is none at the end of the old ones."""

    gone: list[int]
    last: int | None


def look(session: Session, kept: Retention, cursor: Cursor) -> tuple[Slice, Cursor | None]:
    """The next slice, and where to go on; none at the end of the pass. Reads only."""
    found = _PLACES[cursor.place][1](session, kept, cursor.after)
    if found.last is not None:
        return found, Cursor(cursor.place, found.last)
    following = cursor.place + 1
    return found, Cursor(following) if following < len(_PLACES) else None


def remove(session: Session, cursor: Cursor, found: Slice) -> None:
    """Remove the slice."""
    table = _PLACES[cursor.place][0]
    session.execute(
        delete(table).where(table.id.in_(found.gone)).execution_options(synchronize_session=False)
    )


def _batches(session: Session, kept: Retention, after: int) -> Slice:
    rows = session.execute(
        select(
            PushBatch.id,
            PushBatch.state,
            PushBatch.folded_generation,
            SyncRun.created_at,
            SyncRun.finished_at,
        )
        .join(SyncRun, PushBatch.run_id == SyncRun.id)
        .where(PushBatch.id > after)
        .order_by(PushBatch.id)
        .limit(BATCHES_AT_ONCE)
    ).all()
    old = [row for row in rows if kept.batches is not None and row.created_at < kept.batches]
    gone = [
        row.id
        for row in old
        if row.finished_at is not None
        and row.finished_at < kept.batches
        and (row.folded_generation is not None or row.state in _SETTLED)
    ]
    return Slice(gone, rows[-1].id if old else None)


def _rejections(session: Session, kept: Retention, after: int) -> Slice:  # noqa: ARG001 - what is old goes, in any order
    if kept.batches is None:
        return Slice([], None)
    gone = session.scalars(
        select(Rejection.id).where(Rejection.last_seen < kept.batches).limit(ROWS_AT_ONCE)
    ).all()
    return Slice(list(gone), gone[-1] if len(gone) == ROWS_AT_ONCE else None)


def _runs(session: Session, kept: Retention, after: int) -> Slice:
    later = aliased(SyncRun)
    needed = (
        exists().where(PushBatch.run_id == SyncRun.id)
        | exists().where(Rejection.run_id == SyncRun.id)
        | exists().where(CohortBinding.bad_run_id == SyncRun.id)
        | ~exists().where(later.binding_id == SyncRun.binding_id, later.id > SyncRun.id)
    )
    rows = session.execute(
        select(SyncRun.id, SyncRun.created_at, SyncRun.finished_at, needed.label("needed"))
        .where(SyncRun.id > after)
        .order_by(SyncRun.id)
        .limit(ROWS_AT_ONCE)
    ).all()
    old = [row for row in rows if kept.runs is not None and row.created_at < kept.runs]
    gone = [
        row.id
        for row in old
        if row.finished_at is not None and row.finished_at < kept.runs and not row.needed
    ]
    return Slice(gone, rows[-1].id if old else None)


def _snapshots(session: Session, kept: Retention, after: int) -> Slice:
    used = exists().where(SyncRun.snapshot_id == Snapshot.id)
    rows = session.execute(
        select(Snapshot.id, Snapshot.requested_at, used.label("used"))
        .where(Snapshot.id > after)
        .order_by(Snapshot.id)
        .limit(ROWS_AT_ONCE)
    ).all()
    old = [row for row in rows if kept.runs is not None and row.requested_at < kept.runs]
    gone = [row.id for row in old if not row.used]
    return Slice(gone, rows[-1].id if old else None)


def _events(session: Session, kept: Retention, after: int) -> Slice:
    rows = session.execute(
        select(AuditEvent.id, AuditEvent.at)
        .where(AuditEvent.id > after)
        .order_by(AuditEvent.id)
        .limit(ROWS_AT_ONCE)
    ).all()
    old = [row.id for row in rows if kept.runs is not None and row.at < kept.runs]
    return Slice(old, rows[-1].id if old else None)


Look = Callable[[Session, Retention, int], Slice]
# Ids are given in the order of time, so a pass ends at the first slice that is new enough.
_PLACES: tuple[tuple[type[PushBatch | Rejection | SyncRun | Snapshot | AuditEvent], Look], ...] = (
    (PushBatch, _batches),
    (Rejection, _rejections),
    (SyncRun, _runs),
    (Snapshot, _snapshots),
    (AuditEvent, _events),
)


def _ago(now: datetime, days: float) -> datetime | None:
    return now - timedelta(days=days) if days else None
