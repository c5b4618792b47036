"""Due bindings become runs, and runs that were deferred begin: the transactions of a tick.

An occurrence becomes a run in the transaction that moves its binding on, so that killing a scheduler anywhere
repeats nothing and loses nothing. Publishing comes after that commit: `models/runs/outbox.py`.

Locks are short and never waited for: on PostgreSQL rows that another scheduler holds are passed over, on SQLite
there is one writer. What to do about a binding is decided in `scheduler/tick.py`; here it is only written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    and_,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from models import audit
from models.database import bound_locks, bulk
from models.errors import TerminalError
from models.runs import new_runs
from models.runs.missed import counted
from models.tables import AmplitudeProject, CohortBinding, SyncRun
from models.types import ASKED, UNFINISHED_WORDS, RunState, Tier, Trigger, literal_word

ACTOR = "scheduler"


@dataclass(frozen=True, slots=True)
class DueBinding:
    """What a decision about a due binding needs."""

    id: int
    name: str
    cron: str | None
    timezone: str
    overlap: str
    catchup: str
    catchup_window_seconds: int
    jitter_seconds: int
    starts_on: date | None
    ends_on: date | None
    next_due_at: datetime
    next_occurrence: datetime | None
    source: str
    tier: str
    unfinished: bool  # a run of it has begun and not ended
    deferred: bool  # another waits behind that one


@dataclass(frozen=True, slots=True)
class OccurrenceDecision:
    """What becomes of a due binding: a row for `occurrence`, and the next time to look at it.

    `states` are tried in order: a constraint refuses the first one if another door was a moment faster. `late`: no run
    is made any more. The row counts the `missed`: those before its occurrence, with itself if it is late. With
    `pause_reason` the binding is paused instead, and nothing else changes.
    """

    binding: DueBinding
    occurrence: datetime | None = None
    states: tuple[RunState, ...] = ()
    next_occurrence: datetime | None = None
    next_due_at: datetime | None = None
    late: bool = False
    missed: int = 0
    missed_since: datetime | None = None
    pause_reason: str | None = None


def first_due() -> ScalarSelect[Any]:
    """When the next binding is due."""
    # The first entry of the index, not EXISTS: with many rows due in its statistics, PostgreSQL read all of 100,000
    # bindings to find that none is (11 ms against 0.05 ms).
    return (
        select(CohortBinding.next_due_at)
        .where(CohortBinding.next_due_at.is_not(None), ~CohortBinding.paused)
        .order_by(CohortBinding.next_due_at)
        .limit(1)
        .scalar_subquery()
    )


def any_startable() -> ColumnElement[bool]:
    """Whether a deferred run may start."""
    return exists(_startable())


def lock_due(session: Session, now: datetime, limit: int) -> list[DueBinding]:
    """Due bindings, the longest due first, held until the end of the transaction."""
    bound_locks(session)
    columns = (
        CohortBinding.id,
        CohortBinding.name,
        CohortBinding.cron,
        CohortBinding.timezone,
        CohortBinding.overlap,
        CohortBinding.catchup,
        CohortBinding.catchup_window_seconds,
        CohortBinding.jitter_seconds,
        CohortBinding.starts_on,
        CohortBinding.ends_on,
        CohortBinding.next_due_at,
        CohortBinding.next_occurrence,
        AmplitudeProject.name.label("source"),
        AmplitudeProject.tier,
    )
    rows = session.execute(
        select(*columns)
        .join(AmplitudeProject, CohortBinding.project_id == AmplitudeProject.id)
        .where(_due(now))
        .order_by(CohortBinding.next_due_at, CohortBinding.id)
        .limit(limit)
        # FOR NO KEY UPDATE: a run that a person starts at this moment is not kept waiting by its foreign key.
        .with_for_update(of=CohortBinding, skip_locked=True, key_share=True)
    ).mappings()
    due = rows.all()
    ids = [row["id"] for row in due]
    unfinished = _with_run(session, ids, SyncRun.state.in_(UNFINISHED_WORDS))
    deferred = _with_run(session, ids, SyncRun.state == literal_word(RunState.DEFERRED))
    return [
        DueBinding(**row, unfinished=row["id"] in unfinished, deferred=row["id"] in deferred) for row in due
    ]


def apply_decisions(
    session: Session, decisions: Sequence[OccurrenceDecision], now: datetime
) -> Counter[RunState]:
    """Write the decisions; how many runs were made in which state. An occurrence that has a run gets no other."""
    made: Counter[RunState] = Counter()
    pending = [decision for decision in decisions if decision.occurrence is not None]
    for attempt in range(len(RunState)):
        refused: list[OccurrenceDecision] = []
        for state in (RunState.QUEUED, RunState.DEFERRED, RunState.SKIPPED):
            wanted = [one for one in pending if one.states[attempt : attempt + 1] == (state,)]
            inserted = _insert(session, wanted, state, now)
            made[state] += len(inserted)
            refused += [one for one in wanted if one.binding.id not in inserted]
        pending = refused
        if not pending:
            break
    _move_on(session, [decision for decision in decisions if decision.pause_reason is None])
    for decision in decisions:
        if decision.pause_reason is not None:
            _pause(session, decision.binding, decision.pause_reason, now)
    return +made


def start_deferred(session: Session, limit: int) -> int:
    """Queue the deferred runs whose binding has no unfinished run any more; how many.

    A run that a person starts at the same moment may win: then this raises IntegrityError, and the next tick
    sees that run.
    """
    bound_locks(session)
    startable = _startable().limit(limit).with_for_update(of=SyncRun, skip_locked=True)
    started = session.scalars(
        update(SyncRun)
        .where(SyncRun.id.in_(startable))
        .values(state=RunState.QUEUED, published_at=None)
        .returning(SyncRun.id)
        .execution_options(synchronize_session=False)
    ).all()
    return len(started)


def _due(now: datetime) -> ColumnElement[bool]:
    return and_(CohortBinding.next_due_at <= now, ~CohortBinding.paused)


def _startable() -> Select[int]:
    """Deferred runs with nothing before them: a person's, or of bindings that may run by themselves just now."""
    before = aliased(SyncRun)
    return (
        select(SyncRun.id)
        .join(CohortBinding, SyncRun.binding_id == CohortBinding.id)
        .join(AmplitudeProject, CohortBinding.project_id == AmplitudeProject.id)
        .where(
            SyncRun.finished_at.is_(None),
            SyncRun.state == RunState.DEFERRED,
            or_(
                SyncRun.trigger.in_(ASKED),
                and_(~CohortBinding.paused, AmplitudeProject.tier == Tier.AUDIENCES),
            ),
            ~exists().where(before.binding_id == SyncRun.binding_id, before.state.in_(UNFINISHED_WORDS)),
        )
        .order_by(SyncRun.scheduled_for)
    )


def _with_run(session: Session, bindings: Sequence[int], condition: ColumnElement[bool]) -> set[int]:
    if not bindings:
        return set()
    return set(session.scalars(select(SyncRun.binding_id).where(SyncRun.binding_id.in_(bindings), condition)))


def _insert(
    session: Session, decisions: Sequence[OccurrenceDecision], state: RunState, now: datetime
) -> set[int]:
    """The bindings whose run was inserted."""
    rows = [_row(decision, state, now) for decision in decisions]
    return set(bulk.insert_missing(session, SyncRun, rows, "binding_id"))


def _row(decision: OccurrenceDecision, state: RunState, now: datetime) -> dict[str, Any]:
    return new_runs.row(
        decision.binding.id,
        Trigger.SCHEDULE,
        state,
        scheduled_for=decision.occurrence,
        skipped=_why_skipped(decision) if state is RunState.SKIPPED else None,
        now=now,
    ) | {"missed": decision.missed, "missed_since": decision.missed_since}


def _why_skipped(decision: OccurrenceDecision) -> TerminalError:
    if not decision.late:
        return TerminalError("OVERLAP_SKIPPED")
    return TerminalError(
        "OCCURRENCES_MISSED",
        binding=decision.binding.name,
        count=counted(decision.missed),
        since=f"{decision.missed_since:%Y-%m-%d %H:%M} UTC",
    )


def _move_on(session: Session, decisions: Iterable[OccurrenceDecision]) -> None:
    rows = [
        {
            "id": decision.binding.id,
            "next_occurrence": decision.next_occurrence,
            "next_due_at": decision.next_due_at,
        }
        for decision in decisions
    ]
    bulk.update_by_id(session, CohortBinding, rows)


def _pause(session: Session, binding: DueBinding, reason: str, now: datetime) -> None:
    session.execute(
        update(CohortBinding)
        .where(CohortBinding.id == binding.id)
        .values(paused=True, pause_reason=reason)
        .execution_options(synchronize_session=False)
    )
    audit.record(
        session,
        now=now,
        actor=ACTOR,
        action="pause",
        kind="binding",
        name=binding.name,
        binding_id=binding.id,
        reason=reason,
    )
