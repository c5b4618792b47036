"""A worker's hold on a run: taken, renewed, given back.

Every change after the claim goes through `fenced`, which renews the lease and fails with LeaseLost where
another worker has the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from models.database import Database, bound_locks
from models.errors import LeaseLost
from models.tables import StageClaim, SyncRun
from models.types import RunState, Stage, literal_word

# Clocks of hosts differ a little: who is told to take a run must not refuse it for a few milliseconds.
CLOCK_SLACK = timedelta(seconds=2)


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a run: valid while nobody has claimed it with a higher fence.

    `lost`: the worker before this one went away without a word. `attempt` counts that as a failed attempt.
    """

    run_id: int
    fence: int
    attempt: int = 0
    lost: bool = False


def claim(
    db: Database, run_id: int, stage: Stage, *, now: datetime, lease: float, worker: str | None = None
) -> Claim | None:
    """Take the run if it stands at `stage` and is nobody's; none if it is another's (then do nothing).

    `worker`: the name to note for whoever looks at the run.
    """
    with db.write() as session:
        bound_locks(session)
        before = session.scalar(select(SyncRun.attempt).where(SyncRun.id == run_id))
        lost = and_(SyncRun.state == RunState.RUNNING, SyncRun.lease_until.is_not(None))
        claimed = session.execute(
            update(SyncRun)
            .where(SyncRun.id == run_id, SyncRun.stage == stage, claimable(now))
            .values(
                state=RunState.RUNNING,
                fence=SyncRun.fence + 1,
                attempt=SyncRun.attempt + case((lost, 1), else_=0),
                lease_until=now + timedelta(seconds=lease),
                wake_at=None,
                slot_wanted=None,
            )
            .returning(SyncRun.fence, SyncRun.attempt)
            .execution_options(synchronize_session=False)
        ).first()
        if claimed is None:
            return None
        session.execute(
            update(SyncRun)
            .where(SyncRun.id == run_id, SyncRun.started_at.is_(None))
            .values(started_at=now)
            .execution_options(synchronize_session=False)
        )
        session.add(
            StageClaim(run_id=run_id, fence=claimed.fence, stage=stage, worker=worker, claimed_at=now)
        )
    return Claim(run_id, claimed.fence, claimed.attempt, lost=claimed.attempt != before)


def claimable(now: datetime) -> Any:
    """The condition for a claim: queued, due to wake, released, or left by a worker whose lease ran out."""
    return or_(
        SyncRun.state == RunState.QUEUED,
        and_(SyncRun.state == RunState.WAITING, SyncRun.wake_at <= now + CLOCK_SLACK),
        and_(
            SyncRun.state == RunState.RUNNING, or_(SyncRun.lease_until.is_(None), SyncRun.lease_until <= now)
        ),
    )


def give_back(db: Database, worker: str, *, now: datetime, lost: bool) -> list[int]:
    """Free what the worker of that name holds, because it is gone; the runs. A scheduler publishes them at once.

    `lost`: it went without a word, which the next claim counts as an attempt.
    """
    with db.write() as session:
        held = (
            select(SyncRun.id)
            .join(StageClaim, and_(StageClaim.run_id == SyncRun.id, StageClaim.fence == SyncRun.fence))
            .where(
                SyncRun.finished_at.is_(None),
                SyncRun.state == literal_word(RunState.RUNNING),
                SyncRun.lease_until > now,
                StageClaim.worker == worker,
            )
        )
        given = session.execute(
            update(SyncRun)
            .where(SyncRun.id.in_(held))
            .values(lease_until=now if lost else None, published_at=None)
            .returning(SyncRun.id, SyncRun.fence, SyncRun.stage)
            .execution_options(synchronize_session=False)
        ).all()
        if not lost:
            for run, fence, stage in given:
                session.execute(
                    update(StageClaim)
                    .where(StageClaim.run_id == run, StageClaim.fence == fence)
                    .values(left_at=now, left=stage)
                    .execution_options(synchronize_session=False)
                )
        return [run for run, _, _ in given]


def still_held(db: Database, held: Claim, *, now: datetime) -> bool:
    """Whether the claim is good at this moment: to be asked right before what can't be taken back."""
    with db.read() as session:
        found = session.scalar(
            select(SyncRun.id).where(
                SyncRun.id == held.run_id,
                SyncRun.fence == held.fence,
                SyncRun.state == RunState.RUNNING,
                SyncRun.lease_until > now,
            )
        )
    return found is not None


def renew(db: Database, held: Claim, *, now: datetime, lease: float) -> None:
    """Prolong the lease; LeaseLost if it is another's, or was given up: that would keep the run from the next claim."""
    with db.write() as session:
        bound_locks(session)
        renewed = session.scalar(
            update(SyncRun)
            .where(
                SyncRun.id == held.run_id,
                SyncRun.fence == held.fence,
                SyncRun.state == RunState.RUNNING,
                SyncRun.lease_until > now,
            )
            .values(lease_until=now + timedelta(seconds=lease))
            .returning(SyncRun.id)
            .execution_options(synchronize_session=False)
        )
    if renewed is None:
        raise LeaseLost(held.run_id)


@contextmanager
def fenced(
    db: Database, held: Claim, *, now: datetime, lease: float, amplitude: int = 0, marketing_cloud: int = 0
) -> Iterator[tuple[Session, SyncRun]]:
    """One transaction on a claimed run, with the run loaded. Adds to its counts of requests."""
    with db.write() as session:
        bound_locks(session)
        result = session.execute(
            update(SyncRun)
            .where(SyncRun.id == held.run_id, SyncRun.fence == held.fence, SyncRun.state == RunState.RUNNING)
            .values(
                lease_until=now + timedelta(seconds=lease),
                amplitude_requests=SyncRun.amplitude_requests + amplitude,
                marketing_cloud_requests=SyncRun.marketing_cloud_requests + marketing_cloud,
            )
            .execution_options(synchronize_session=False)
        )
        if not isinstance(result, CursorResult) or result.rowcount != 1:
            raise LeaseLost(held.run_id)
        run = session.get_one(SyncRun, held.run_id)
        yield session, run
        if run.state != RunState.RUNNING or run.lease_until is None or run.lease_until <= now:
            _leave(session, held, run, now)


def _leave(session: Session, held: Claim, run: SyncRun, now: datetime) -> None:
    """Note how the claim ended, in the transaction that ends it."""
    on = run.stage if run.state == RunState.RUNNING else run.state
    session.execute(
        update(StageClaim)
        .where(StageClaim.run_id == held.run_id, StageClaim.fence == held.fence)
        .values(left_at=now, left=on, code=run.error_code)
        .execution_options(synchronize_session=False)
    )
