"""Rows that need a worker become messages: what to publish, and the mark that one scheduler publishes it.

`SyncRun.published_at` is all there is to it: nothing is deleted or moved when a message is sent, so a lost
message, a broker that is down and a scheduler that dies between mark and message all end the same way, with the
row published again. Twice is harmless: a claim is a compare-and-set (`models/runs/lifecycle.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Label,
    ScalarSelect,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from models.database import bound_locks
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, literal_word

Instant: TypeAlias = datetime | BindParameter[datetime]


def unclaimed(session: Session, now: datetime, stale: timedelta, limit: int) -> dict[int, bool]:
    """Runs that need a message, by `scheduled_for`: to start, to go on, or to rescue from an ended lease.

    True where a message was sent for it and nobody took it.
    """
    parts = [
        select(SyncRun.id, SyncRun.scheduled_for, _in_vain(now - stale)).where(
            SyncRun.finished_at.is_(None), condition
        )
        for condition in _needs(now, now - stale)
    ]
    together = union_all(*parts).subquery()
    wanted = select(together.c.id, together.c.in_vain).order_by(together.c.scheduled_for).limit(limit)
    return {run: bool(in_vain) for run, in_vain in session.execute(wanted)}


def waking(session: Session, now: datetime, stale: timedelta, limit: int) -> dict[int, bool]:
    """Runs whose time to wake has come, whoever should have been woken first is first; True as for `unclaimed`."""
    wanted = (
        select(SyncRun.id, _in_vain(now - stale))
        .where(SyncRun.finished_at.is_(None), _wakes(now, now - stale))
        .order_by(SyncRun.wake_at)
        .limit(limit)
    )
    return {run: bool(in_vain) for run, in_vain in session.execute(wanted)}


def mark_published(
    session: Session, ids: Sequence[int], now: datetime, stale: timedelta
) -> list[tuple[int, Stage]]:
    """Those of `ids` that still need a message and are this scheduler's to publish after the commit."""
    bound_locks(session)
    mine = (
        select(SyncRun.id)
        .where(
            SyncRun.id.in_(ids),
            SyncRun.finished_at.is_(None),
            or_(_wakes(now, now - stale), *_needs(now, now - stale)),
        )
        .with_for_update(of=SyncRun, skip_locked=True)
    )
    marked = session.execute(
        update(SyncRun)
        .where(SyncRun.id.in_(mine))
        .values(published_at=now)
        .returning(SyncRun.id, SyncRun.stage)
        .execution_options(synchronize_session=False)
    ).all()
    order = {run: place for place, run in enumerate(ids)}
    return sorted(((run, stage) for run, stage in marked), key=lambda one: order[one[0]])


def unmark_published(session: Session, ids: Sequence[int], marked: datetime) -> None:
    """The broker refused: they are as unpublished as before, unless somebody has published them since."""
    session.execute(
        update(SyncRun)
        .where(SyncRun.id.in_(ids), SyncRun.published_at == marked)
        .values(published_at=None)
        .execution_options(synchronize_session=False)
    )


def names(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """The name of each run's binding, for whoever watches the messages."""
    found = session.execute(
        select(SyncRun.id, CohortBinding.name)
        .join(CohortBinding, SyncRun.binding_id == CohortBinding.id)
        .where(SyncRun.id.in_(ids))
    )
    return {run: name for run, name in found}  # noqa: C416 - rows are no pairs to mypy


def any_needs(now: Instant, lost: Instant) -> list[ScalarSelect[int]]:
    """A run that needs a message, if there is one, for each reason; one published until `lost` needs another.

    Not EXISTS: with many published runs in its statistics, PostgreSQL reads all runs to find that none is lost (15
    ms with 10,000 of 110,000). In the index's own order it has no choice.
    """
    return [
        select(SyncRun.id)
        .where(SyncRun.finished_at.is_(None), condition)
        .order_by(SyncRun.published_at, SyncRun.wake_at)
        .limit(1)
        .scalar_subquery()
        for condition in (*_needs(now, lost), _wakes(now, lost))
    ]


def next_wake(now: Instant) -> ScalarSelect[datetime | None]:
    """When the next waiting run wakes by itself."""
    return (
        select(SyncRun.wake_at)
        .where(SyncRun.state == literal_word(RunState.WAITING), SyncRun.wake_at > now)
        .order_by(SyncRun.wake_at)
        .limit(1)
        .scalar_subquery()
    )


def _needs(now: Instant, lost: Instant) -> list[ColumnElement[bool]]:
    """Why a run needs a message, a reason each: see `SyncRun.published_at`.

    Once published for what it waits for, it is published again only when that was before `lost`. Each reason is
    a range of the index over open runs: a long queue of published runs is not read again at every tick.
    """
    queued = _in_state(RunState.QUEUED)
    again = SyncRun.published_at <= lost
    return [
        and_(queued, SyncRun.published_at.is_(None)),
        and_(queued, again),
        and_(
            _in_state(RunState.RUNNING),
            or_(SyncRun.lease_until.is_(None), SyncRun.lease_until <= now),
            or_(SyncRun.published_at.is_(None), SyncRun.published_at < SyncRun.lease_until, again),
        ),
    ]


def _wakes(now: Instant, lost: Instant) -> ColumnElement[bool]:
    return and_(
        _in_state(RunState.WAITING),
        SyncRun.wake_at <= now,
        or_(
            SyncRun.published_at.is_(None),
            SyncRun.published_at < SyncRun.wake_at,
            SyncRun.published_at <= lost,
        ),
    )


def _in_vain(lost: Instant) -> Label[bool]:
    """Whether a message was sent for what the run waits for, so long ago that nobody takes it."""
    waited_for = case(
        (SyncRun.state == RunState.RUNNING, SyncRun.lease_until),
        (SyncRun.state == RunState.WAITING, SyncRun.wake_at),
    )
    return and_(
        SyncRun.published_at <= lost,
        func.coalesce(SyncRun.published_at >= waited_for, true()),
    ).label("in_vain")


def _in_state(state: RunState) -> ColumnElement[bool]:
    """The state in a form from which PostgreSQL can't conclude that the index of unfinished runs serves.

    Until its statistics know of a new backlog, it reads that index from end to end instead of a range of the one
    over open runs: 24 ms a tick with 10,000 published runs, against 4 ms.
    """
    return SyncRun.state == select(literal(state)).scalar_subquery()
