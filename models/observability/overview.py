"""What a person looks at across bindings and runs. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased, immediateload

from models.tables import CohortBinding, PushBatch, Rejection, SyncRun
from models.types import UNFINISHED_WORDS, BatchState, RunState

# Whoever looks at the runs of all bindings has read those: none of their columns is asked for again.
_KNOWN = immediateload(SyncRun.binding)


@dataclass(frozen=True)
class Reason:
    """Rows that Marketing Cloud refused for one reason. `rows` counts them; no key is named."""

    direction: str
    code: str
    message: str
    rows: int


def last_results(session: Session) -> dict[int, SyncRun]:
    """The newest run that has ended, by binding; one that was skipped is no result."""
    run = aliased(SyncRun)
    newest = (  # a few steps back in the index of each binding's history
        select(run.id)
        .where(
            run.binding_id == CohortBinding.id, run.finished_at.is_not(None), run.state != RunState.SKIPPED
        )
        .order_by(run.id.desc())
        .limit(1)
        .correlate(CohortBinding)
        .scalar_subquery()
    )
    found = select(SyncRun).where(SyncRun.id.in_(select(newest).select_from(CohortBinding)))
    return {run.binding_id: run for run in session.scalars(found.options(_KNOWN))}


def unfinished(session: Session) -> dict[int, SyncRun]:
    """The run that is under way or held, by binding: there is one at most."""
    open_ones = select(SyncRun).where(SyncRun.state.in_(UNFINISHED_WORDS))
    return {run.binding_id: run for run in session.scalars(open_ones.options(_KNOWN))}


def unfinished_of(session: Session, binding_id: int) -> SyncRun | None:
    """The binding's run that is under way or held."""
    return session.scalar(
        select(SyncRun).where(SyncRun.binding_id == binding_id, SyncRun.state.in_(UNFINISHED_WORDS))
    )


def paces(session: Session, binding_id: int, *, limit: int = 50) -> list[tuple[int, float]]:
    """Of the binding's last acknowledged batches the rows, and the seconds from sending to acknowledgement."""
    found = session.execute(
        select(PushBatch.n, PushBatch.sent_at, PushBatch.acknowledged_at)
        .where(PushBatch.binding_id == binding_id, PushBatch.state == BatchState.ACKNOWLEDGED)
        .order_by(PushBatch.id.desc())
        .limit(limit)
    )
    return [(n, max(0.0, (end - sent).total_seconds())) for n, sent, end in found if sent and end]


def rejections(session: Session, run_id: int) -> list[Reason]:
    """Why rows of the run were refused, the most frequent reason first.

    A rejection belongs to the last run that met it: an older run's list is empty once another met the same.
    """
    rows = func.count()
    found = session.execute(
        select(Rejection.direction, Rejection.code, func.min(Rejection.message), rows)
        .where(Rejection.run_id == run_id)
        .group_by(Rejection.direction, Rejection.code)
        .order_by(rows.desc(), Rejection.code)
    )
    return [Reason(*row) for row in found]
