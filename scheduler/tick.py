"""One tick: due bindings become runs. No leader: any number of schedulers may tick at once.

`decide` is pure, so that two schedulers which look at one row want the same; the transaction in
`models/runs/schedule.py` lets one of them write it. Nothing here publishes: what a tick commits is found by
`scheduler/publish.py`, of this process or of any other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast

import structlog
from sqlalchemy.exc import IntegrityError

from models.database import Database
from models.errors import ConfigurationError, SyncError
from models.naming import schedule_key
from models.runs import due_work, holds, reconciling, retries, schedule
from models.runs.due_work import DueWork
from models.runs.missed import counted
from models.runs.schedule import DueBinding, OccurrenceDecision
from models.types import RunState, Tier
from scheduler.cron import Schedule
from scheduler.policy import Catchup, Overlap, Period, due_occurrences, jitter, overlap

SLICE = 250  # bindings a transaction: some 0.1 s, in which SQLite's other writers wait
DEFERRED_AT_ONCE = 1000
RETRIES_AT_ONCE = 250

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick did. `more`: the slice was full, so tick again at once."""

    bindings: int = 0
    queued: int = 0
    deferred: int = 0
    skipped: int = 0
    missed: int = 0
    paused: int = 0
    started: int = 0  # deferred runs that became queued
    retried: int = 0  # failed runs that another follows
    more: bool = False

    @property
    def anything(self) -> bool:
        """Whether something was changed."""
        return bool(self.bindings or self.started or self.retried)


def tick(db: Database, now: datetime, *, todo: DueWork | None = None, limit: int = SLICE) -> Ticked:
    """One slice of the bindings due at `now`, and the deferred runs that may start.

    `todo` is what a look found; without one it looks. Without anything to do nothing is written: a writer of SQLite is
    never kept waiting by an idle tick.
    """
    if todo is None:
        with db.read() as session:
            todo = due_work.look(session, now, timedelta())
    if todo.held:
        with db.write() as session:
            expired = holds.expire(session, now, DEFERRED_AT_ONCE)
        log.info("held_runs_expired", runs=expired)
    started = _start_deferred(db) if todo.startable else 0
    ticked = _make_runs(db, now, limit) if todo.bindings else Ticked()
    # After what is due by its schedule: a new occurrence makes a retry of the last one needless.
    retried = _start_retries(db, now) if todo.retries and not ticked.more else 0
    return replace(ticked, started=started, retried=retried)


def _make_runs(db: Database, now: datetime, limit: int) -> Ticked:
    with db.write() as session:
        bindings = schedule.lock_due(session, now, limit)
        decisions = [decide(binding, now) for binding in bindings]
        made = schedule.apply_decisions(session, decisions, now)
    _log_decisions(decisions)
    return _summary(decisions, made, more=len(bindings) == limit)


def decide(binding: DueBinding, now: datetime) -> OccurrenceDecision:
    """What becomes of a due binding. One that can't be decided about is paused: it stops nobody else."""
    try:
        return _decide(binding, now)
    except SyncError as error:
        return OccurrenceDecision(binding, pause_reason=f"{error.message} {error.remedy}")
    except Exception as error:  # noqa: BLE001 - whatever one row holds, the others' occurrences must go on
        wrong = ConfigurationError(
            "CRON_INVALID", cron=binding.cron, hint=f"It can't be computed ({type(error).__name__}: {error})."
        )
        return OccurrenceDecision(binding, pause_reason=f"{wrong.message} {wrong.remedy}")


def _decide(binding: DueBinding, now: datetime) -> OccurrenceDecision:
    if binding.tier != Tier.AUDIENCES:
        raise ConfigurationError("PLAN_ON_DEMAND_ONLY", source=binding.source, tier=binding.tier)
    if not binding.cron:
        return OccurrenceDecision(binding)
    key = schedule_key(binding.name)
    plan = Schedule.parse(binding.cron, binding.timezone, key)
    period = Period.of_days(binding.starts_on, binding.ends_on, binding.timezone)
    due = due_occurrences(
        plan,
        binding.next_occurrence or plan.next_after(binding.next_due_at),
        now,
        cast("Catchup", binding.catchup),
        timedelta(seconds=binding.catchup_window_seconds),
        delay=jitter(key, binding.jitter_seconds),
        period=period,
    )
    return OccurrenceDecision(
        binding,
        occurrence=due.occurrence,
        states=(RunState.SKIPPED,) if due.late else _states(binding),
        next_occurrence=due.next_occurrence,
        next_due_at=due.next_due_at,
        late=due.late,
        missed=due.missed,
        missed_since=due.missed_since,
    )


def _states(binding: DueBinding) -> tuple[RunState, ...]:
    """The state the run begins in, and those to fall back on if somebody starts another at this moment."""
    policy = cast("Overlap", binding.overlap)
    behind = (RunState.DEFERRED, RunState.SKIPPED) if policy == "queue" else (RunState.SKIPPED,)
    wanted = overlap(policy, binding.unfinished, binding.deferred)
    return {"run": (RunState.QUEUED, *behind), "queue": behind, "skip": (RunState.SKIPPED,)}[wanted]


def look_at_lists(db: Database, now: datetime) -> None:
    """Runs held for a webhook's list that has changed since: a first sync that came to its end, or a new base."""
    with db.read() as session:
        if not reconciling.any_held(session):
            return
    with db.write() as session:
        begun = reconciling.look_again(session, now, limit=DEFERRED_AT_ONCE)
    if begun:
        log.info("held_runs_restarted", runs=len(begun))


def _start_deferred(db: Database) -> int:
    try:
        with db.write() as session:
            return schedule.start_deferred(session, DEFERRED_AT_ONCE)
    except IntegrityError:  # a person started another run of the binding: it goes first
        return 0


def _start_retries(db: Database, now: datetime) -> int:
    with db.write() as session:
        return retries.start(session, now, RETRIES_AT_ONCE)


def _log_decisions(decisions: list[OccurrenceDecision]) -> None:
    for decision in decisions:
        binding = decision.binding
        if decision.pause_reason is not None:
            log.warning("binding_paused", binding=binding.name, reason=decision.pause_reason)
        elif decision.missed:
            log.info("occurrences_missed", binding=binding.name, missed=counted(decision.missed))


def _summary(decisions: list[OccurrenceDecision], made: Counter[RunState], *, more: bool) -> Ticked:
    return Ticked(
        bindings=len(decisions),
        queued=made[RunState.QUEUED],
        deferred=made[RunState.DEFERRED],
        skipped=made[RunState.SKIPPED],
        missed=sum(decision.missed for decision in decisions),
        paused=sum(decision.pause_reason is not None for decision in decisions),
        more=more,
    )
