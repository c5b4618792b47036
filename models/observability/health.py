"""Whether the work gets done: overdue occurrences, a scheduler that does not tick, workers that claim nothing.

HealthFacts are read in one function, and what is wrong is said in one other, for every place that shows it: the status
page, the scheduler's log, and whatever measures or notifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from models.errors import TerminalError
from models.tables import CohortBinding, SyncRun
from models.types import RunState

# Each scheduler keeps such a key in the queue's server while it ticks; its value is the instant of the last tick.
HEARTBEATS = "cohort-sync:scheduler:"

# Every code that `alarms` may say.
CODES = ("SCHEDULER_SILENT", "SCHEDULER_BEHIND", "WORKERS_SILENT", "WORKERS_BUSY")

OVERDUE = timedelta(minutes=2)
UNCLAIMED = timedelta(minutes=1)
JUST_PUBLISHED = timedelta(seconds=30)  # a lost message is published again: that is no claim
UNCLAIMED_FOR_SURE = timedelta(minutes=3)


@dataclass(frozen=True)
class HealthFacts:
    """What there is to know of schedulers and workers from their work. `schedulers` none: the queue is away."""

    scheduled: int  # bindings with a next occurrence
    overdue: int
    overdue_since: datetime | None
    unclaimed: int  # runs that no worker takes, though it is their time
    unclaimed_since: datetime | None
    working: int  # runs in a worker's hands
    schedulers: int | None


def facts(session: Session, now: datetime, *, schedulers: int | None) -> HealthFacts:
    """Read them; a few ranges of indexes."""
    scheduled = session.scalar(select(func.count()).where(_scheduled())) or 0
    overdue, overdue_since = session.execute(
        select(func.count(), func.min(CohortBinding.next_due_at)).where(late(now))
    ).one()
    unclaimed, unclaimed_since = session.execute(
        select(func.count(), func.min(func.coalesce(SyncRun.wake_at, SyncRun.created_at))).where(
            SyncRun.finished_at.is_(None), _unclaimed(now)
        )
    ).one()
    working = session.scalar(
        select(func.count()).where(
            SyncRun.finished_at.is_(None), SyncRun.state == RunState.RUNNING, SyncRun.lease_until > now
        )
    )
    return HealthFacts(
        scheduled, overdue, overdue_since, unclaimed, unclaimed_since, working or 0, schedulers=schedulers
    )


def alarms(found: HealthFacts, *, named: int = 0) -> list[tuple[str, TerminalError]]:
    """What is wrong, by whom it is about; up to `named` late bindings are left out, to be named one by one."""
    wrong = []
    if found.schedulers == 0 and found.scheduled:
        wrong.append(("scheduler", TerminalError("SCHEDULER_SILENT", count=found.scheduled)))
    elif found.overdue > named and found.overdue_since is not None:
        since = shown(found.overdue_since)
        wrong.append(("scheduler", TerminalError("SCHEDULER_BEHIND", count=found.overdue, since=since)))
    if found.unclaimed and found.unclaimed_since is not None:
        code = "WORKERS_BUSY" if found.working else "WORKERS_SILENT"
        since = shown(found.unclaimed_since)
        busy = TerminalError(code, count=found.unclaimed, since=since, working=found.working)
        wrong.append(("workers", busy))
    return wrong


def late(now: datetime) -> ColumnElement[bool]:
    """The condition for a binding that was due and got no run."""
    return and_(_scheduled(), CohortBinding.next_due_at < now - OVERDUE)


def _scheduled() -> ColumnElement[bool]:
    return and_(CohortBinding.next_due_at.is_not(None), ~CohortBinding.paused)


def queued_long(now: datetime) -> ColumnElement[bool]:
    """Whether a run is queued, and no worker takes it."""
    return and_(
        SyncRun.state == RunState.QUEUED,
        or_(
            SyncRun.created_at < now - UNCLAIMED_FOR_SURE,
            and_(
                SyncRun.created_at < now - UNCLAIMED,
                or_(SyncRun.published_at.is_(None), SyncRun.published_at < now - JUST_PUBLISHED),
            ),
        ),
    )


def shown(instant: datetime) -> str:
    """An instant as a message names it."""
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _unclaimed(now: datetime) -> ColumnElement[bool]:
    asleep = and_(SyncRun.state == RunState.WAITING, SyncRun.wake_at < now - UNCLAIMED)
    free_since = func.coalesce(SyncRun.lease_until, SyncRun.published_at)
    left = and_(SyncRun.state == RunState.RUNNING, free_since < now - UNCLAIMED)
    return or_(queued_long(now), asleep, left)
