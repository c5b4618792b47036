"""What is measured, read from the rows themselves: the state of everything now, and the runs that ended since.

Only reads. Nothing is counted here: a counter's memory stands in `monitor/counters.py`, and what a figure is called
in `monitor/definitions.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ScalarSelect, func, or_, select
from sqlalchemy.orm import Session, aliased

from models.membership.snapshots import month_of, spent_since
from models.observability import feeds, health
from models.observability.cohort_feed import CohortFeed
from models.tables import AmplitudeProject, CohortBinding, Destination, Snapshot, SyncRun
from models.types import UNFINISHED, RunState

# So many bindings have series of their own; where there are more, only those that need somebody. Each has some 18
# series, and Prometheus is at ease with tens of thousands of one target.
SHOWN_BINDINGS = 1_000

STILL_OPEN = (RunState.DEFERRED, *UNFINISHED)
RESULTS = (
    RunState.SUCCEEDED,
    RunState.PARTIAL,
    RunState.FAILED,
    RunState.CANCELLED,
)  # one that was skipped is none
AT_ONCE = 5_000  # ids in a statement; SQLite takes 32,766


@dataclass(frozen=True, slots=True)
class Source:
    """A source's downloads of this month."""

    name: str
    spent: int
    quota: int


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding with its last result, if it has one, and its last success."""

    name: str
    source: str
    destination: str
    attribute: str
    members: int
    paused: bool
    failures: int
    next_due_at: datetime | None
    created_at: datetime
    held: bool
    state: str | None
    started_at: datetime | None
    finished_at: datetime | None
    acknowledged: int | None
    rejected: int | None
    entered: int | None
    exited: int | None
    succeeded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything at one moment."""

    work: health.HealthFacts
    bindings: int
    paused: int
    unfinished: dict[str, int]  # runs by state, those without one too
    sources: list[Source]
    secrets: dict[str, timedelta]  # the age of each destination's client secret
    shown: list[Binding]
    feeds: dict[str, CohortFeed]  # of the bindings that a webhook feeds, by name


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, and will not change again. `duration` none: it never began."""

    id: int
    trigger: str
    state: str
    acknowledged: int
    rejected: int
    duration: timedelta | None


def read(session: Session, now: datetime, *, schedulers: int | None, shown: int = SHOWN_BINDINGS) -> Figures:
    """The figures at `now`. `schedulers` is how many are alive; none: the queue is away."""
    bindings = session.scalar(select(func.count()).select_from(CohortBinding)) or 0
    return Figures(
        work=health.facts(session, now, schedulers=schedulers),
        bindings=bindings,
        paused=session.scalar(select(func.count()).where(CohortBinding.paused)) or 0,
        unfinished=_unfinished(session),
        sources=_sources(session, now),
        secrets={
            name: timedelta(days=(now.date() - made_on).days)
            for name, made_on in session.execute(
                select(Destination.name, Destination.client_secret_made_on).order_by(Destination.id)
            )
        },
        shown=_shown(session, now, shown, all_of_them=bindings <= shown),
        feeds={feed.binding: feed for feed in feeds.feeds(session, now)},
    )


def _unfinished(session: Session) -> dict[str, int]:
    found = session.execute(
        select(SyncRun.state, func.count()).where(SyncRun.finished_at.is_(None)).group_by(SyncRun.state)
    )
    return {**dict.fromkeys(STILL_OPEN, 0), **dict(found.all())}


def _sources(session: Session, now: datetime) -> list[Source]:
    spent = (
        select(Snapshot.project_id, func.count().label("downloads"))
        .where(spent_since(month_of(now)))
        .group_by(Snapshot.project_id)
        .subquery()
    )
    found = session.execute(
        select(AmplitudeProject.name, func.coalesce(spent.c.downloads, 0), AmplitudeProject.monthly_quota)
        .outerjoin(spent, spent.c.project_id == AmplitudeProject.id)
        .order_by(AmplitudeProject.id)
    )
    return [Source(*row) for row in found]


def _shown(session: Session, now: datetime, most: int, *, all_of_them: bool) -> list[Binding]:
    last, success = aliased(SyncRun), aliased(SyncRun)
    held = select(SyncRun.binding_id).where(SyncRun.finished_at.is_(None), SyncRun.state == RunState.HELD)
    query = (
        select(
            CohortBinding.name,
            AmplitudeProject.name,
            Destination.name,
            CohortBinding.attribute,
            CohortBinding.member_count,
            CohortBinding.paused,
            CohortBinding.failures_in_row,
            CohortBinding.next_due_at,
            CohortBinding.created_at,
            CohortBinding.id.in_(held),
            last.state,
            last.started_at,
            last.finished_at,
            last.acknowledged,
            last.rejected,
            last.entered,
            last.exited,
            success.finished_at,
        )
        .join(AmplitudeProject, AmplitudeProject.id == CohortBinding.project_id)
        .join(Destination, Destination.id == CohortBinding.destination_id)
        .outerjoin(last, last.id == _newest(*RESULTS))
        .outerjoin(success, success.id == _newest(RunState.SUCCEEDED))
        .order_by(CohortBinding.id)
        .limit(most)
    )
    if not all_of_them:
        query = query.where(
            or_(
                CohortBinding.paused,
                CohortBinding.bad_run_id.is_not(None),
                CohortBinding.id.in_(held),
                health.late(now),
            )
        )
    found: Iterable[Any] = session.execute(query)
    return [Binding(*row) for row in found]


def _newest(*states: RunState) -> ScalarSelect[int]:
    """A binding's newest run in one of the states: a few steps back in the index of its history."""
    run = aliased(SyncRun)
    return (
        select(run.id)
        .where(run.binding_id == CohortBinding.id, run.state.in_(states))
        .order_by(run.id.desc())
        .limit(1)
        .correlate(CohortBinding)
        .scalar_subquery()
    )


def newest_run(session: Session) -> int:
    """The highest id of all runs, 0 without one."""
    return session.scalar(select(func.max(SyncRun.id))) or 0


def runs_after(session: Session, run_id: int) -> set[int]:
    """Every run that was made after that one."""
    return set(session.scalars(select(SyncRun.id).where(SyncRun.id > run_id)))


def open_runs(session: Session) -> set[int]:
    """Every run that has not ended."""
    return set(session.scalars(select(SyncRun.id).where(SyncRun.finished_at.is_(None))))


def ended(session: Session, run_ids: Iterable[int]) -> Iterator[Ended]:
    """Those of the runs that have ended."""
    ids = sorted(run_ids)
    for start in range(0, len(ids), AT_ONCE):
        found = session.execute(
            select(
                SyncRun.id,
                SyncRun.trigger,
                SyncRun.state,
                SyncRun.acknowledged,
                SyncRun.rejected,
                SyncRun.started_at,
                SyncRun.finished_at,
            ).where(SyncRun.id.in_(ids[start : start + AT_ONCE]), SyncRun.finished_at.is_not(None))
        )
        for run, trigger, state, acknowledged, rejected, began, end in found:
            yield Ended(run, trigger, state, acknowledged, rejected, end - began if began and end else None)
