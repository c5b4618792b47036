"""The life of a run: made, claimed, carried on under a fence, ended.

Every change after the claim goes through `fenced`, which renews the lease and fails with LeaseLost where
another worker has the run. Nothing here knows a vendor or a queue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models import audit
from models.database import Database, bound_locks
from models.errors import Cancelled, ConfigurationError, LeaseLost, NotFoundError, SyncError
from models.membership.snapshots import forget_upload
from models.naming import NAME_MAX, find, row_id
from models.runs import unresolved_batches
from models.setup.chains import start_followers
from models.tables import CohortBinding, StageClaim, SyncRun
from models.types import UNFINISHED_WORDS, RunState, Stage, Trigger, literal_word

# Clocks of hosts differ a little: who is told to take a run must not refuse it for a few milliseconds.
CLOCK_SLACK = timedelta(seconds=2)

LATEST = "latest"


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a run: valid while nobody has claimed it with a higher fence.

    `lost`: the worker before this one went away without a word. `attempt` counts that as a failed attempt.
    """

    run_id: int
    fence: int
    attempt: int = 0
    lost: bool = False


# --- making one -----------------------------------------------------------------------------------------


def dispatch(
    session: Session,
    binding: CohortBinding,
    *,
    trigger: Trigger,
    scheduled_for: datetime,
    now: datetime,
    snapshot_id: int | None = None,
    full: bool = False,
    force: bool = False,
    queue: bool = False,
    idempotency_key: str | None = None,
    approved: bool = False,
    actor: str,
) -> SyncRun:
    """A queued run, to be published after the commit.

    A second unfinished run of a binding is refused; with `queue` it is deferred, and begins when the first has
    ended. With an idempotency key that was seen before, the run made then is returned. `force`: past the quota.
    `approved`: past the guards, which the audit log says.
    """
    if (before := known(session, binding, idempotency_key)) is not None:
        return before
    state = _free_state(session, binding, queue=queue)
    run = SyncRun(
        binding=binding,
        trigger=trigger,
        scheduled_for=scheduled_for,
        snapshot_id=snapshot_id,
        full=full,
        force=force,
        approved=approved,
        idempotency_key=idempotency_key,
        state=state,
        stage=Stage.SNAPSHOT,
        published_at=now if state is RunState.QUEUED else None,
        created_at=now,
        actor=actor,
    )
    session.add(run)
    try:
        session.flush()
    except IntegrityError:  # another door was a moment faster
        session.rollback()
        _free_state(session, binding, queue=False)
        raise
    said: dict[str, Any] = {
        name: True for name, given in (("full", full), ("force", force), ("approved", approved)) if given
    }
    audit.record(
        session,
        now=now,
        actor=actor,
        action="run",
        kind="binding",
        name=binding.name,
        binding_id=binding.id,
        run=run.id,
        **said,
    )
    return run


def known(session: Session, binding: CohortBinding, idempotency_key: str | None) -> SyncRun | None:
    """The run that was made with this key."""
    if idempotency_key is None:
        return None
    return session.scalar(
        select(SyncRun).where(SyncRun.binding_id == binding.id, SyncRun.idempotency_key == idempotency_key)
    )


def _free_state(session: Session, binding: CohortBinding, *, queue: bool) -> RunState:
    """The state in which another run of the binding may be made."""
    begun, waits = (  # an entry each of a partial index, however long the binding's history is
        session.scalars(select(SyncRun).where(SyncRun.binding_id == binding.id, in_state)).all()
        for in_state in (
            SyncRun.state.in_(UNFINISHED_WORDS),
            SyncRun.state == literal_word(RunState.DEFERRED),
        )
    )
    if not begun:
        return RunState.QUEUED
    if queue and not waits:
        return RunState.DEFERRED
    run = (waits if queue else begun)[0]
    raise ConfigurationError("RUN_UNFINISHED", binding=binding.name, run=run.id, state=run.state)


# --- working on one -------------------------------------------------------------------------------------


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


def advance(run: SyncRun, stage: Stage, *, now: datetime) -> None:
    """On to another stage, free for the next claim; publish it after the commit."""
    run.stage, run.attempt = stage, 0
    release(run, now=now)


def release(run: SyncRun, *, now: datetime) -> None:
    """Leave the run at its stage, free for the next claim; publish it after the commit.

    Without a lease: one that has ended is a worker that was lost.
    """
    run.lease_until, run.published_at = None, now


def wait(run: SyncRun, wake_at: datetime | None, *, slot_wanted: str | None = None) -> None:
    """Leave the run until `wake_at`; the scheduler wakes it.

    With the id of a data extension as `slot_wanted` also until that has a free slot for it (`models/runs/slots.py`).
    """
    run.state, run.wake_at, run.lease_until, run.slot_wanted = RunState.WAITING, wake_at, None, slot_wanted


def hold(run: SyncRun, error: SyncError, *, until: datetime | None = None) -> None:
    """A guard stopped it: a person approves or rejects, or it ends at `until`."""
    run.state, run.lease_until, run.held_until = RunState.HELD, None, until
    note_error(run, error)


def finish(session: Session, run: SyncRun, state: RunState, *, now: datetime) -> None:
    """The end. Its batches are left in states that the next run understands; a file of a person's is forgotten."""
    run.state, run.finished_at = state, now
    run.lease_until, run.wake_at, run.slot_wanted = None, None, None
    if run.snapshot_id is not None:
        forget_upload(session, run.snapshot_id)
    if state in {RunState.FAILED, RunState.CANCELLED}:
        unresolved_batches.leave(session, run.id)
    binding = session.get_one(CohortBinding, run.binding_id)
    if state is not RunState.SKIPPED:
        binding.bad_run_id = run.id if state in {RunState.FAILED, RunState.PARTIAL} else None
    if state is RunState.FAILED:
        binding.failures_in_row += run.retry == 0  # an occurrence counts once, however often it is retried
    elif state in {RunState.SUCCEEDED, RunState.PARTIAL}:
        binding.failures_in_row = 0
        session.flush()
        start_followers(session, run, now=now)


def wake_from_blackout(session: Session, binding_id: int, *, now: datetime) -> None:
    """The binding's blackouts were changed: a run that waits for the end of one looks again."""
    session.execute(
        update(SyncRun)
        .where(
            SyncRun.binding_id == binding_id,
            SyncRun.state == RunState.WAITING,
            SyncRun.error_code == "BLACKOUT",
        )
        .values(wake_at=now)
        .execution_options(synchronize_session=False)
    )


def require_newest(session: Session, binding_id: int, run_id: int) -> None:
    """RUN_STATE unless that run has succeeded and is the binding's newest."""
    newest = session.scalars(
        select(SyncRun).where(SyncRun.binding_id == binding_id).order_by(SyncRun.id.desc()).limit(1)
    ).one()
    if newest.id != run_id or newest.state != RunState.SUCCEEDED:
        raise ConfigurationError(
            "RUN_STATE", run=newest.id, state=newest.state, action="removing its binding"
        )


def last_with_digest(session: Session, run: SyncRun, digest: str) -> SyncRun | None:
    """The binding's newest finished run over the same file."""
    return session.scalar(
        select(SyncRun)
        .where(
            SyncRun.binding_id == run.binding_id,
            SyncRun.id < run.id,
            SyncRun.digest == digest,
            SyncRun.finished_at.is_not(None),
        )
        .order_by(SyncRun.id.desc())
        .limit(1)
    )


def note_error(run: SyncRun, error: SyncError | None) -> None:
    """Write the error where people look, or wipe it."""
    run.error_code = error.code if error else None
    run.error_message = error.message if error else None
    run.error_remedy = error.remedy if error else None


# --- what a person does to one --------------------------------------------------------------------------


def get_run(session: Session, run_id: int | str) -> SyncRun:
    """The run of that id."""
    number = row_id(str(run_id))
    run = session.get(SyncRun, number) if number is not None else None
    if run is None:
        raise NotFoundError("NOT_FOUND", kind="run", name=str(run_id)[:NAME_MAX], listing="runs")
    return run


def find_run(session: Session, name: str, *, first: Collection[RunState] = ()) -> SyncRun:
    """The run of that id, the newest one of that binding, or the newest of all for `latest`.

    Of a binding or of all, one in a state of `first` goes before a newer one: what was skipped behind a held run is
    not what a person means to approve.
    """
    if row_id(name) is not None:
        return get_run(session, name)
    binding = None if name == LATEST else find(session, CohortBinding, name)
    newest = list_runs(session, binding, states=first, limit=1) if first else []
    newest = newest or list_runs(session, binding, limit=1)
    if not newest:
        raise NotFoundError("NOT_FOUND", kind="run", name=name, listing="runs")
    return newest[0]


def list_runs(
    session: Session,
    binding: CohortBinding | None = None,
    *,
    states: Collection[RunState] | None = None,
    triggers: Collection[Trigger] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
) -> list[SyncRun]:
    """The newest runs first, of those created from `since` on and before `until`."""
    query = select(SyncRun).order_by(SyncRun.id.desc()).limit(limit)
    if binding is not None:
        query = query.where(SyncRun.binding_id == binding.id)
    if states:
        query = query.where(SyncRun.state.in_(states))
    if triggers:
        query = query.where(SyncRun.trigger.in_(triggers))
    if since is not None:
        query = query.where(SyncRun.created_at >= since)
    if until is not None:
        query = query.where(SyncRun.created_at < until)
    return list(session.scalars(query))


def cancel(session: Session, run_id: int | str, *, now: datetime, actor: str) -> SyncRun:
    """Stop it. What was submitted is followed to its end first, by the worker; nothing more is sent.

    A run whose every row was pushed already ends as it would have.
    """
    run = _locked(session, run_id)
    if run.state.finished:
        raise ConfigurationError("RUN_STATE", run=run.id, state=run.state, action="cancelling it")
    run.cancel_requested = True
    if run.state in {RunState.QUEUED, RunState.HELD, RunState.DEFERRED} or (
        run.state == RunState.WAITING and run.stage not in {Stage.PUSH, Stage.FINISH}
    ):
        note_error(run, Cancelled("CANCELLED", binding=run.binding.name))
        finish(session, run, RunState.CANCELLED, now=now)
    elif run.state == RunState.WAITING:
        run.wake_at = now
    _record(session, run, "cancel", now=now, actor=actor)
    return run


def approve(session: Session, run_id: int | str, *, now: datetime, actor: str, reason: str = "") -> SyncRun:
    """Let a held run go on past its guard; publish it after the commit."""
    run = _held(session, run_id, "approving it")
    run.state, run.approved, run.published_at = RunState.QUEUED, True, now
    said = _decision(run, reason)
    note_error(run, None)
    _record(session, run, "approve", now=now, actor=actor, **said)
    return run


def reject(session: Session, run_id: int | str, *, now: datetime, actor: str, reason: str = "") -> SyncRun:
    """End a held run; nothing is pushed."""
    run = _held(session, run_id, "rejecting it")
    said = _decision(run, reason)
    note_error(
        run,
        ConfigurationError("HELD_REJECTED", f"Reason: {reason}" if reason else "", binding=run.binding.name),
    )
    finish(session, run, RunState.CANCELLED, now=now)
    _record(session, run, "reject", now=now, actor=actor, **said)
    return run


def _decision(run: SyncRun, reason: str) -> dict[str, str | None]:
    """What was decided about, for the audit log."""
    return {"guard": run.error_code, "reason": reason or None}


def _record(
    session: Session, run: SyncRun, action: str, *, now: datetime, actor: str, **details: Any
) -> None:
    audit.record(
        session,
        now=now,
        actor=actor,
        action=action,
        kind="run",
        name=str(run.id),
        binding_id=run.binding_id,
        binding=run.binding.name,
        **details,
    )


def _held(session: Session, run_id: int | str, action: str) -> SyncRun:
    run = _locked(session, run_id)
    if run.state != RunState.HELD:
        raise ConfigurationError("RUN_STATE", run=run.id, state=run.state, action=action)
    return run


def _locked(session: Session, run_id: int | str) -> SyncRun:
    """The run, kept from every worker until this transaction ends."""
    run = get_run(session, run_id)
    session.refresh(run, with_for_update={"of": SyncRun})
    return run
