"""The life of a run: made, carried on from stage to stage, ended. Nothing here knows a vendor or a queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models import audit
from models.errors import ConfigurationError, SyncError
from models.membership.snapshots import forget_upload
from models.runs import unresolved_batches
from models.setup.chains import start_followers
from models.tables import CohortBinding, SyncRun
from models.types import UNFINISHED_WORDS, RunState, Stage, Trigger, literal_word


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
