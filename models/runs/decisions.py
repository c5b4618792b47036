"""What a person does to a run: finds, cancels, approves or rejects it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import audit
from models.errors import Cancelled, ConfigurationError, NotFoundError
from models.naming import NAME_MAX, find, row_id
from models.runs import lifecycle
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger

LATEST = "latest"


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
        lifecycle.note_error(run, Cancelled("CANCELLED", binding=run.binding.name))
        lifecycle.finish(session, run, RunState.CANCELLED, now=now)
    elif run.state == RunState.WAITING:
        run.wake_at = now
    _record(session, run, "cancel", now=now, actor=actor)
    return run


def approve(session: Session, run_id: int | str, *, now: datetime, actor: str, reason: str = "") -> SyncRun:
    """Let a held run go on past its guard; publish it after the commit."""
    run = _held(session, run_id, "approving it")
    run.state, run.approved, run.published_at = RunState.QUEUED, True, now
    said = _decision(run, reason)
    lifecycle.note_error(run, None)
    _record(session, run, "approve", now=now, actor=actor, **said)
    return run


def reject(session: Session, run_id: int | str, *, now: datetime, actor: str, reason: str = "") -> SyncRun:
    """End a held run; nothing is pushed."""
    run = _held(session, run_id, "rejecting it")
    said = _decision(run, reason)
    lifecycle.note_error(
        run,
        ConfigurationError("HELD_REJECTED", f"Reason: {reason}" if reason else "", binding=run.binding.name),
    )
    lifecycle.finish(session, run, RunState.CANCELLED, now=now)
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
