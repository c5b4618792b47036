"""The slots of a data extension: how many are free, whose the next one is, and whom a free one wakes.

A run that has no job in flight goes before one that has, and among equals the oldest `scheduled_for` goes first:
so a run of hundreds of batches leaves one of the slots to others, and they are served in the order of their time.

A run that gets no slot leaves its worker and sleeps (`SyncRun.slot_wanted`). Whoever frees a slot wakes the next in
line in its own transaction; what nobody did, because a worker was killed or a slot came free by time alone, a
scheduler does at its next tick (`wake_all`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ScalarSelect,
    String,
    and_,
    cast,
    distinct,
    exists,
    func,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from config.settings import Settings
from models.database import lock
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import IN_FLIGHT_WORDS, BatchState, RunState, Stage, literal_word

# Deadlocks come from concurrent writers; Salesforce advises consecutive loads.
JOBS_IN_FLIGHT = 2
LATE = timedelta(
    seconds=5
)  # woken, and not claimed by then: its worker is busy elsewhere, so the next one is woken
# The vendor asks for a pause: who waits for its end keeps the place in the line, for the others would meet it too.
PAUSES = ("MC_RATE_LIMITED", "MC_BLOCKED")


@dataclass(frozen=True)
class SlotRules:
    """How long a job counts: `deadline` at most, and `orphaned` if its run has ended, so that nobody looks at it."""

    deadline: timedelta
    orphaned: timedelta

    @classmethod
    def of(cls, settings: Settings) -> SlotRules:
        """As set for this installation."""
        return cls(
            timedelta(seconds=settings.job_deadline_seconds), timedelta(seconds=settings.uncertain_seconds)
        )


@dataclass(frozen=True)
class Woken:
    """A run that was given a free slot: to be published after the commit. `binding` is its name."""

    run_id: int
    binding: str


def may_take(
    session: Session, run: SyncRun, data_extension_id: str, rules: SlotRules, *, now: datetime
) -> bool:
    """Whether one of the free slots is this run's, after those of the runs that go before it.

    Nobody else takes one until this transaction ends.
    """
    lock(session, f"slots:{data_extension_id}")
    free = _free(session, data_extension_id, rules, now=now, destinations=(run.binding.destination_id,))
    return free > 0 and run.id in [one.id for one in _line(session, data_extension_id, free, now=now)]


def wake(session: Session, data_extension_id: str, rules: SlotRules, *, now: datetime) -> list[Woken]:
    """Wake the sleeping runs whose turn it is, one for each slot that is free and nobody takes at this moment."""
    if session.scalar(_sleepers(data_extension_id).limit(1)) is None:
        return []
    lock(session, f"slots:{data_extension_id}")
    destinations = session.scalars(
        select(CohortBinding.destination_id)
        .where(
            CohortBinding.id.in_(select(SyncRun.binding_id).where(SyncRun.slot_wanted == data_extension_id))
        )
        .distinct()
    ).all()
    free = _free(session, data_extension_id, rules, now=now, destinations=destinations)
    if free < 1:
        return []
    asleep = [one.id for one in _line(session, data_extension_id, free, now=now) if one.asleep]
    if not asleep:
        return []
    woken = session.scalars(
        update(SyncRun)
        .where(SyncRun.id.in_(asleep), SyncRun.state == RunState.WAITING, SyncRun.slot_wanted.is_not(None))
        .values(wake_at=now, published_at=now)
        .returning(SyncRun.id)
        .execution_options(synchronize_session=False)
    ).all()
    names = select(SyncRun.id, CohortBinding.name).join(CohortBinding).where(SyncRun.id.in_(woken))
    return [Woken(run_id, name) for run_id, name in session.execute(names)]


def wake_all(session: Session, rules: SlotRules, *, now: datetime) -> list[Woken]:
    """The same for every data extension."""
    wanted = session.scalars(
        select(SyncRun.slot_wanted).where(SyncRun.slot_wanted.is_not(None)).distinct()
    ).all()
    return [one for name in wanted if name is not None for one in wake(session, name, rules, now=now)]


def wake_after(session: Session, run: SyncRun, rules: SlotRules, *, now: datetime) -> list[Woken]:
    """The same after a run has left its push, whatever for."""
    if run.stage != Stage.PUSH:
        return []
    used = session.scalar(select(PushBatch.data_extension_id).where(PushBatch.run_id == run.id).limit(1))
    return [] if used is None else wake(session, used, rules, now=now)


def idle(session: Session, rules: SlotRules, *, now: datetime) -> bool:
    """Whether a sleeping run may be woken: to be asked before the database is locked for `wake_all`."""
    flying = (
        select(PushBatch.data_extension_id)
        .join(SyncRun, PushBatch.run_id == SyncRun.id)
        .where(*_counts(rules, now))
        .group_by(PushBatch.data_extension_id)
    )
    busy = flying.having(_jobs() >= JOBS_IN_FLIGHT)
    return session.scalar(_sleepers().where(SyncRun.slot_wanted.not_in(busy)).limit(1)) is not None


def any_asleep() -> ScalarSelect[int]:
    """A run that wants a slot, if there is one."""
    return select(SyncRun.id).where(SyncRun.slot_wanted.is_not(None)).limit(1).scalar_subquery()


def _sleepers(data_extension_id: str | None = None) -> Any:
    """Runs that sleep until a slot is free; one that has a job of its own to look at later may be woken for it, too."""
    of = (
        SyncRun.slot_wanted.is_not(None)
        if data_extension_id is None
        else SyncRun.slot_wanted == data_extension_id
    )
    return select(SyncRun.id).where(of, SyncRun.state == literal_word(RunState.WAITING))


def _free(
    session: Session, data_extension_id: str, rules: SlotRules, *, now: datetime, destinations: Sequence[int]
) -> int:
    """Slots without a job; one is kept while the vendor may be working on a submission that nobody can follow."""
    flying = session.scalar(
        select(_jobs())
        .select_from(PushBatch)
        .join(SyncRun, PushBatch.run_id == SyncRun.id)
        .where(PushBatch.data_extension_id == data_extension_id, *_counts(rules, now))
    )
    lost = session.scalar(
        select(CohortBinding.id)
        .where(CohortBinding.destination_id.in_(destinations), CohortBinding.quiet_until > now)
        .limit(1)
    )
    return (JOBS_IN_FLIGHT if lost is None else max(1, JOBS_IN_FLIGHT - 1)) - (flying or 0)


def _jobs() -> Any:
    """How many jobs the batches are: an entering and an exiting one may be sent together."""
    return func.count(distinct(func.coalesce(PushBatch.request_id, cast(PushBatch.id, String))))


def _counts(rules: SlotRules, now: datetime) -> tuple[Any, ...]:
    """Whether a batch counts as a job in flight; a submission whose answer was lost may be one."""
    return (
        PushBatch.state.in_(IN_FLIGHT_WORDS),
        PushBatch.sent_at > now - rules.deadline,
        or_(SyncRun.finished_at.is_(None), PushBatch.sent_at > now - rules.orphaned),
    )


def _line(session: Session, data_extension_id: str, places: int, *, now: datetime) -> Sequence[Any]:
    """The first in the line as (id, asleep): runs in a worker's hands, woken, or asleep until a slot is free."""
    batches = (PushBatch.run_id == SyncRun.id, PushBatch.data_extension_id == data_extension_id)
    flying = exists().where(*batches, PushBatch.state.in_(IN_FLIGHT_WORDS))
    has_one = exists().where(
        *batches,
        PushBatch.state == BatchState.PLANNED,
        or_(PushBatch.due_at.is_(None), PushBatch.due_at <= now),
    )
    working = select(SyncRun.id).where(
        SyncRun.finished_at.is_(None),
        SyncRun.state == literal_word(RunState.RUNNING),
        SyncRun.stage == Stage.PUSH,
        SyncRun.lease_until > now,
    )
    wanting = select(SyncRun.id).where(
        SyncRun.slot_wanted == data_extension_id,
        or_(SyncRun.wake_at.is_(None), SyncRun.wake_at >= now - LATE),
    )
    asleep = and_(
        SyncRun.state == RunState.WAITING,
        or_(
            SyncRun.wake_at.is_(None),
            and_(SyncRun.wake_at > now, func.coalesce(SyncRun.error_code, "").not_in(PAUSES)),
        ),
    )
    return session.execute(
        select(SyncRun.id, asleep.label("asleep"))
        .where(SyncRun.id.in_(union_all(working, wanting)), ~SyncRun.cancel_requested, has_one)
        .order_by(flying, SyncRun.scheduled_for, SyncRun.id)
        .limit(places)
    ).all()
