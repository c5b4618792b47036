"""Who gets a data extension's next free slot, where several runs wait for one.

A run that has no job in flight goes before one that has, and among equals the oldest `scheduled_for` goes first:
so a run of hundreds of batches leaves one of the slots to others, and they are served in the order of their time.
Only a run that can take the slot within a moment counts: none that sleeps, was killed, or keeps a blackout.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from models.tables import PushBatch, SyncRun
from models.types import IN_FLIGHT_WORDS, BatchState, RunState, Stage

SOON = timedelta(seconds=2)  # a run without a slot looks again within a second
LATE = timedelta(seconds=5)  # not woken by then: its worker is busy elsewhere, and the slot would stay empty


def may_take(session: Session, run: SyncRun, data_extension_id: str, *, free: int, now: datetime) -> bool:
    """Whether one of the `free` slots is this run's, after those of the runs that go before it."""
    if free < 1:
        return False
    batches = (PushBatch.run_id == SyncRun.id, PushBatch.data_extension_id == data_extension_id)
    flying = exists().where(*batches, PushBatch.state.in_(IN_FLIGHT_WORDS))
    wants_one = exists().where(
        *batches,
        PushBatch.state == BatchState.PLANNED,
        or_(PushBatch.due_at.is_(None), PushBatch.due_at <= now),
    )
    older = or_(
        SyncRun.scheduled_for < run.scheduled_for,
        and_(SyncRun.scheduled_for == run.scheduled_for, SyncRun.id < run.id),
    )
    mine = session.scalar(select(flying).where(SyncRun.id == run.id).select_from(SyncRun))
    before = session.scalar(
        select(func.count())
        .select_from(SyncRun)
        .where(
            SyncRun.finished_at.is_(None),
            SyncRun.id != run.id,
            SyncRun.stage == Stage.PUSH,
            ~SyncRun.cancel_requested,
            or_(
                and_(SyncRun.state == RunState.RUNNING, SyncRun.lease_until > now),
                and_(SyncRun.state == RunState.WAITING, SyncRun.wake_at.between(now - LATE, now + SOON)),
            ),
            wants_one,
            or_(~flying, older) if mine else and_(~flying, older),
        )
    )
    return (before or 0) < free
