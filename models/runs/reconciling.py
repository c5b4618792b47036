"""Runs that give a webhook's list a new base: what they may spend by themselves, and the ones a person asks for."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import audit
from models.database import lock
from models.errors import ConfigurationError
from models.membership import cohort_lists, list_trust, snapshots
from models.membership.computed_time import computed_time
from models.observability.overview import unfinished_of
from models.runs import lifecycle
from models.tables import AmplitudeProject, CohortBinding, Snapshot, SyncRun, WebhookMessage
from models.types import Feed, Reconcile, RunState, Stage, Trigger

ACTOR = "scheduler"


def within_budget(session: Session, source: AmplitudeProject, *, budget: int, now: datetime) -> bool:
    """Whether one more download may be taken without a person: of the budget, and of the month's quota."""
    lock(session, f"snapshot:{source.id}")
    taken = session.scalar(
        select(func.count())
        .select_from(SyncRun)
        .join(CohortBinding, CohortBinding.id == SyncRun.binding_id)
        .where(
            CohortBinding.project_id == source.id,
            SyncRun.reconcile == Reconcile.ITSELF,
            SyncRun.created_at >= snapshots.month_of(now),
        )
    )
    spent, allowed = snapshots.quota(session, source, now=now)
    return (taken or 0) < budget and spent < allowed


def ask(session: Session, binding: CohortBinding, *, now: datetime, actor: str) -> SyncRun:
    """A run that begins with a download for the list's base, to be published after the commit.

    A run that waits for a person's approval goes on with it instead: what it showed was of the doubtful list.
    """
    require_fed(binding)
    found = cohort_lists.of_binding(session, binding)
    if found is not None and found.size is not None and found.size > snapshots.MAX_MEMBERS:
        raise ConfigurationError(
            "RECONCILE_TOO_LARGE", binding=binding.name, cohort=binding.cohort_id, size=f"{found.size:,}"
        )
    run = unfinished_of(session, binding.id)
    if run is not None and run.state == RunState.HELD:
        restart(run)
        run.published_at = now
        audit.record(session, now=now, actor=actor, action="reconcile", kind="run", name=str(run.id))
    else:
        run = lifecycle.dispatch(
            session, binding, trigger=Trigger.MANUAL, scheduled_for=now, now=now, actor=actor
        )
    run.reconcile = Reconcile.ASKED
    session.flush()
    return run


def require_fed(binding: CohortBinding) -> None:
    """RECONCILE_FEED unless the binding has a list."""
    if binding.feed != Feed.WEBHOOK:
        raise ConfigurationError("RECONCILE_FEED", binding=binding.name)


def restart(run: SyncRun) -> None:
    """A held run from its first stage on, to be published: nothing of it was sent yet."""
    run.state, run.published_at, run.held_until, run.held_facts = RunState.QUEUED, None, None, None
    forget_comparison(run)
    run.stage, run.attempt, run.wake_at = Stage.SNAPSHOT, 0, None


def forget_comparison(run: SyncRun) -> None:
    """What the run had found out by a list that gets a new base."""
    run.snapshot_id, run.digest = None, None
    run.entered = run.exited = run.spared = 0
    lifecycle.note_error(run, None)


def look_again(session: Session, now: datetime, *, limit: int) -> list[SyncRun]:
    """Runs held for a doubtful list that has changed since: they begin anew, and are judged anew."""
    held = (
        select(SyncRun)
        .where(
            SyncRun.finished_at.is_(None),
            SyncRun.state == RunState.HELD,
            SyncRun.error_code.in_(list_trust.CODES),
        )
        .order_by(SyncRun.id)
        .limit(limit)
        .with_for_update(of=SyncRun, skip_locked=True)
    )
    begun = [
        run for run in session.scalars(held).all() if _changed(session, run, now - cohort_lists.ENDED_AFTER)
    ]
    for run in begun:
        restart(run)
        audit.record(session, now=now, actor=ACTOR, action="look again", kind="run", name=str(run.id))
    return begun


def any_held(session: Session) -> bool:
    """Whether a run is held for a doubtful list; a look at an index of open runs."""
    one = select(SyncRun.id).where(
        SyncRun.finished_at.is_(None),
        SyncRun.state == RunState.HELD,
        SyncRun.error_code.in_(list_trust.CODES),
    )
    return session.scalar(one.limit(1)) is not None


def _changed(session: Session, run: SyncRun, before: datetime) -> bool:
    """Whether the run's list has a newer base, or messages, the last of them old enough to end a sync."""
    found = cohort_lists.of_binding(session, run.binding)
    shown: Snapshot | None = run.snapshot
    if found is None or shown is None or shown.upto is None:
        return found is not None
    if found.based_at is not None and found.based_at > computed_time(shown.requested_at):
        return True
    last, at = session.execute(
        select(func.max(WebhookMessage.id), func.max(WebhookMessage.received_at)).where(
            WebhookMessage.list_id == found.id
        )
    ).one()
    return last is not None and last > shown.upto and at <= before
