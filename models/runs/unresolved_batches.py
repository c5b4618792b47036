"""Batches that a run leaves behind when it ends early, and what a later run of the binding makes of them.

What the vendor still has is followed to its end before anything that contradicts it is sent; what nobody will ever know
the end of is *lost*, and its keys are pushed anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models.tables import PushBatch, SyncRun
from models.types import BatchState


def leave(session: Session, run_id: int) -> None:
    """A run ends early: never sent is dropped, sent without an id is lost, submitted stays to be followed.

    The worker has moved the binding's `quiet_until` on for whatever it was sending.
    """
    mine = PushBatch.run_id == run_id
    session.flush()
    for condition, state in (
        ((PushBatch.state == BatchState.PLANNED) & PushBatch.sent_at.is_(None), BatchState.DROPPED),
        (PushBatch.state.in_((BatchState.PLANNED, BatchState.SENDING)), BatchState.LOST),
    ):
        session.execute(
            update(PushBatch)
            .where(mine, condition)
            .values(state=state)
            .execution_options(synchronize_session=False)
        )


def submitted(session: Session, run: SyncRun) -> list[PushBatch]:
    """Batches of earlier runs that the vendor still has: to be followed to their end before a diff."""
    return list(
        session.scalars(
            select(PushBatch)
            .where(
                PushBatch.binding_id == run.binding_id,
                PushBatch.run_id != run.id,
                PushBatch.state == BatchState.SUBMITTED,
            )
            .order_by(PushBatch.id)
        )
    )


def any_lost(session: Session, binding_id: int, *, but_of: int | None = None) -> bool:
    """Whether a push of the binding, by another run than `but_of`, has an unknown outcome."""
    query = select(PushBatch.id).where(PushBatch.binding_id == binding_id, PushBatch.state == BatchState.LOST)
    if but_of is not None:
        query = query.where(PushBatch.run_id != but_of)
    return session.scalar(query.limit(1)) is not None


def iter_lost(session: Session, binding_id: int) -> Iterator[bytes]:
    """Key blobs whose push has an unknown outcome."""
    yield from session.scalars(
        select(PushBatch.keys)
        .where(PushBatch.binding_id == binding_id, PushBatch.state == BatchState.LOST)
        .order_by(PushBatch.id)
        .execution_options(yield_per=1)
    )


def supersede(session: Session, run: SyncRun) -> None:
    """The run has pushed every key of the lost batches anew; what was refused meanwhile it keeps itself."""
    session.execute(
        update(PushBatch)
        .where(
            PushBatch.binding_id == run.binding_id,
            PushBatch.run_id != run.id,
            PushBatch.state == BatchState.LOST,
        )
        .values(state=BatchState.SUPERSEDED)
        .execution_options(synchronize_session=False)
    )
