"""Whether a binding's state stands still while somebody compares it with the world.

Every claim of a run raises its fence, so the sum of a binding's fences tells whether any of its runs was worked on.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.errors import ConfigurationError
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import UNFINISHED_WORDS, BatchState, RunState

# A run that is held or deferred has nothing at the vendor.


def mark(session: Session, binding: CohortBinding) -> int:
    """A number that another claim of any run of the binding changes."""
    query = select(func.coalesce(func.sum(SyncRun.fence), 0)).where(SyncRun.binding_id == binding.id)
    return int(session.scalar(query) or 0)


def require_still(session: Session, binding: CohortBinding) -> None:
    """RUN_UNFINISHED while a run of the binding is at work or about to be."""
    run = session.scalar(
        select(SyncRun)
        .where(
            SyncRun.binding_id == binding.id,
            SyncRun.state.in_(UNFINISHED_WORDS),
            SyncRun.state != RunState.HELD,
        )
        .order_by(SyncRun.id)
        .limit(1)
    )
    if run is not None:
        raise ConfigurationError("RUN_UNFINISHED", binding=binding.name, run=run.id, state=run.state)


def anything_open(session: Session, binding: CohortBinding) -> bool:
    """Whether the end of a push of the binding is unknown: lost, or sent by a run that has ended before it."""
    query = select(PushBatch.id).where(
        PushBatch.binding_id == binding.id, PushBatch.state.in_((BatchState.SUBMITTED, BatchState.LOST))
    )
    return session.scalar(query.limit(1)) is not None
