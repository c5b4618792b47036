"""What needs a person, as one list: the status page shows it, the metrics count it, notices tell it.

Only rows that have something are read, so that a look costs the same beside 100,000 bindings that are well. Nothing
here remembers or tells: a need is a fact of this moment, and its history stands in `models/observability/notices.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from models.audit import PROGRAMS
from models.errors import SyncError, TerminalError
from models.membership.snapshots import month_of, spent_since
from models.naming import name_key
from models.observability import feeds, health
from models.setup.destinations import SECRET_DAYS, SECRET_WARN_DAYS
from models.tables import (
    AmplitudeProject,
    AuditEvent,
    CohortBinding,
    Destination,
    NoticeChannel,
    Snapshot,
    SyncRun,
)
from models.types import UNFINISHED_WORDS, RunState

QUOTA_WARN = 0.9
# Of what one cause makes at once, the oldest are named; how many there are says the alarm of that cause.
NAMED = 1_000
NOT_RETRIED = timedelta(minutes=5)  # a retry that was due so long ago is not being made
CHANNEL = "channel"
UNHEARD = timedelta(minutes=10)  # of a channel that refuses: a few attempts

# What a run that was stopped says of itself: it always does, and a gap would hide the run.
_SAID = (
    SyncRun.id,
    func.coalesce(SyncRun.error_code, "INTERNAL"),
    func.coalesce(SyncRun.error_message, "No error was noted."),
    func.coalesce(SyncRun.error_remedy, "Look at it with `cohort-sync show`."),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at.

    `kind` and `id` say what it is about, whatever its name: 0 where there is but one of the kind. One that is not
    `final` may mend itself: it is shown, and told only when it has not.
    """

    kind: str
    id: int
    about: str
    code: str
    message: str
    remedy: str
    final: bool = True

    @property
    def key(self) -> tuple[str, int, str]:
        """What two looks know it by."""
        return self.kind, self.id, self.code


def current(session: Session, now: datetime, *, schedulers: int | None) -> list[Alert]:
    """Every need at `now`: of our own parts, of bindings by name, of destinations and sources.

    `schedulers` is how many are alive; none: the queue is away.
    """
    of_bindings = [*_held(session), *_unclaimed(session, now), *_ended_badly(session, now)]
    of_bindings += [*_paused(session), *_overdue(session, now), *_doubted(session, now)]
    return [
        *_of_parts(session, now, schedulers),
        *_unheard(session, now),
        *sorted(of_bindings, key=lambda need: name_key(need.about)),
        *_old_secrets(session, now.date()),
        *_spent(session, now),
    ]


def _need(kind: str, subject: int, about: str, error: SyncError) -> Alert:
    return Alert(kind, subject, about, error.code, error.message, error.remedy)


def _of_parts(session: Session, now: datetime, schedulers: int | None) -> Iterator[Alert]:
    if schedulers is None:
        yield _need("queue", 0, "queue", TerminalError("BROKER_UNREACHABLE"))
    facts = health.facts(session, now, schedulers=schedulers)
    for about, wrong in health.alarms(facts, named=NAMED):
        yield _need(about, 0, about, wrong)


def _unheard(session: Session, now: datetime) -> Iterator[Alert]:
    failing = select(NoticeChannel).where(NoticeChannel.failing_since <= now - UNHEARD)
    for channel in session.scalars(failing.order_by(NoticeChannel.id)):
        since = health.shown(channel.failing_since or now)
        error = TerminalError("NOTIFY_FAILED", channel=channel.name, since=since)
        yield _need(CHANNEL, channel.id, "notifications", error)


def _held(session: Session) -> Iterator[Alert]:
    held = (
        select(CohortBinding.name, *_SAID)
        .join(SyncRun, SyncRun.binding_id == CohortBinding.id)
        .where(
            SyncRun.finished_at.is_(None),
            or_(
                SyncRun.state == RunState.HELD,
                and_(SyncRun.state == RunState.WAITING, SyncRun.error_code == "SECRET_KEY_WRONG"),
            ),
        )
    )
    for name, run, code, message, remedy in session.execute(held):
        # Of the run, not of the binding: the next one that is held needs a person anew.
        yield Alert("run", run, name, code, message, remedy)


def _unclaimed(session: Session, now: datetime) -> Iterator[Alert]:
    waiting = (
        select(CohortBinding.name, SyncRun.id)
        .join(CohortBinding, CohortBinding.id == SyncRun.binding_id)
        .where(SyncRun.finished_at.is_(None), health.queued_long(now))
        .order_by(SyncRun.id)
        .limit(NAMED)
    )
    for name, run in session.execute(waiting):
        yield _need("run", run, name, TerminalError("RUN_UNCLAIMED", run=run))


def _ended_badly(session: Session, now: datetime) -> Iterator[Alert]:
    again = aliased(SyncRun)
    bad = (
        select(
            CohortBinding.id,
            CohortBinding.name,
            *_SAID,
            SyncRun.state,
            SyncRun.rejected,
            SyncRun.retry_at,
            again.id,
        )
        .join(SyncRun, SyncRun.id == CohortBinding.bad_run_id)
        .outerjoin(
            again,
            and_(
                again.binding_id == CohortBinding.id,
                again.state.in_(UNFINISHED_WORDS),
                again.state != RunState.HELD,
                again.retry_of == func.coalesce(SyncRun.retry_of, SyncRun.id),
            ),
        )
        .where(CohortBinding.bad_run_id.is_not(None))
    )
    for row in session.execute(bad):
        binding, name, run, code, message, remedy, state, rejected, retry_at, retrying = row
        if state == RunState.PARTIAL:
            error = TerminalError("ROWS_REJECTED", rows=rejected, run=run)
            yield _need("binding", binding, name, error)
            continue
        hope = ""
        if retrying is not None:
            hope = f" Run {retrying} tries again."
        elif retry_at is not None and retry_at > now - NOT_RETRIED:
            hope = f" Another run follows at {health.shown(retry_at)}."
        yield Alert("binding", binding, name, code, message + hope, remedy, final=not hope)


def _paused(session: Session) -> Iterator[Alert]:
    """Bindings that paused themselves: who paused one by hand knows of it, and `status` shows that it is."""
    event = aliased(AuditEvent)
    last = (
        select(event.id)
        .where(event.binding_id == CohortBinding.id, event.action == "pause", event.kind == "binding")
        .order_by(event.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    paused = (
        select(CohortBinding.id, CohortBinding.name, CohortBinding.pause_reason)
        .outerjoin(AuditEvent, AuditEvent.id == last)
        .where(
            CohortBinding.paused,
            or_(AuditEvent.id.is_(None), and_(AuditEvent.actor.in_(PROGRAMS), AuditEvent.door.is_(None))),
        )
    )
    for binding, name, reason in session.execute(paused):
        error = TerminalError("PAUSED", binding=name, reason=reason or "no reason was given")
        yield _need("binding", binding, name, error)


def _overdue(session: Session, now: datetime) -> Iterator[Alert]:
    overdue = select(CohortBinding.id, CohortBinding.name, CohortBinding.next_due_at).where(health.late(now))
    overdue = overdue.order_by(CohortBinding.next_due_at, CohortBinding.id).limit(NAMED)
    for binding, name, due_at in session.execute(overdue):
        error = TerminalError("OVERDUE", binding=name, since=health.shown(due_at or now))
        yield _need("binding", binding, name, error)


def _doubted(session: Session, now: datetime) -> Iterator[Alert]:
    for feed in feeds.feeds(session, now):
        for error in feed.alerts():
            yield _need("binding", feed.binding_id, feed.binding, error)


def _old_secrets(session: Session, today: date) -> Iterator[Alert]:
    old = select(Destination.id, Destination.name, Destination.client_secret_made_on).where(
        Destination.client_secret_made_on <= today - timedelta(days=SECRET_WARN_DAYS)
    )
    for destination, name, made_on in session.execute(old.order_by(Destination.name_key)):
        days = (today - made_on).days
        error = TerminalError("SECRET_AGE", destination=name, days=days, limit=SECRET_DAYS)
        yield _need("destination", destination, name, error)


def _spent(session: Session, now: datetime) -> Iterator[Alert]:
    spent = (  # a range of an index for each source: its month, not its years
        select(func.count())
        .where(Snapshot.project_id == AmplitudeProject.id, spent_since(month_of(now)))
        .scalar_subquery()
    )
    nearly = select(AmplitudeProject.id, AmplitudeProject.name, spent, AmplitudeProject.monthly_quota).where(
        spent > 0, spent >= AmplitudeProject.monthly_quota * QUOTA_WARN
    )
    for source, name, used, quota in session.execute(nearly.order_by(AmplitudeProject.name_key)):
        yield Alert(
            "source",
            source,
            name,
            "AMPLITUDE_QUOTA",
            f"{used} of this month's {quota} cohort downloads are spent.",
            "Sync less often until the first of the month (UTC), or ask Amplitude for more.",
        )
