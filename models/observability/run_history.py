"""Runs as pages list them: a filtered page, the recent ones of some bindings, and what one was made of. Reads only.

Each look is a few ranges of indexes, so that a page costs the same beside 100,000 runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.errors import ConfigurationError
from models.naming import name_key
from models.tables import CohortBinding, PushBatch, StageClaim, SyncRun
from models.types import RunState, Trigger

PAGE = 50
RECENT = 20
BATCHES_SHOWN = 200
CLAIMS_SHOWN = 2_000


@dataclass(frozen=True)
class Filter:
    """Which runs: each part narrows. `before`: older than the run of that id, for the next page."""

    binding_id: int | None = None
    state: str | None = None
    trigger: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None

    def __post_init__(self) -> None:
        for field, given, known in (("state", self.state, RunState), ("trigger", self.trigger, Trigger)):
            if given is not None and given not in list(known):
                raise ConfigurationError(
                    "SETTING_INVALID", field=field, value=given[:40], hint=f"Use one of: {', '.join(known)}."
                )


def page(session: Session, wanted: Filter, *, limit: int = PAGE) -> list[SyncRun]:
    """The newest first."""
    query = select(SyncRun).order_by(SyncRun.id.desc()).limit(limit)
    if wanted.binding_id is not None:
        query = query.where(SyncRun.binding_id == wanted.binding_id)
    if wanted.state is not None:
        query = query.where(SyncRun.state == wanted.state)
    if wanted.trigger is not None:
        query = query.where(SyncRun.trigger == wanted.trigger)
    if wanted.since is not None:
        query = query.where(SyncRun.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(SyncRun.created_at < wanted.until)
    if wanted.before is not None:
        query = query.where(SyncRun.id < wanted.before)
    return list(session.scalars(query))


@dataclass(frozen=True, slots=True)
class Past:
    """A run in a chart or a list of results."""

    id: int
    state: str
    stage: str
    members: int
    entered: int
    exited: int
    finished_at: datetime | None


def recent(session: Session, binding_id: int, *, limit: int = RECENT) -> list[Past]:
    """The binding's last runs, the newest first."""
    found = session.execute(
        select(
            SyncRun.id,
            SyncRun.state,
            SyncRun.stage,
            SyncRun.members,
            SyncRun.entered,
            SyncRun.exited,
            SyncRun.finished_at,
        )
        .where(SyncRun.binding_id == binding_id)
        .order_by(SyncRun.id.desc())
        .limit(limit)
    )
    return [Past(*row) for row in found]


def synced(runs: Sequence[Past]) -> list[Past]:
    """Those that brought Marketing Cloud to a snapshot, the oldest first."""
    return [run for run in reversed(runs) if run.state in {RunState.SUCCEEDED, RunState.PARTIAL}]


def bindings(
    session: Session, *, search: str = "", offset: int = 0, limit: int = PAGE
) -> tuple[list[CohortBinding], int]:
    """A page of the bindings by name, and how many there are; `search` is a part of the name."""
    part = name_key(search)
    matching = CohortBinding.name_key.contains(part, autoescape=True)
    total = session.scalar(select(func.count()).select_from(CohortBinding).where(matching)) or 0
    rows = select(CohortBinding).where(matching).order_by(CohortBinding.name_key).offset(offset).limit(limit)
    return list(session.scalars(rows)), total


def batches(session: Session, run_id: int) -> list[PushBatch]:
    """The run's first batches in order, without their keys."""
    query = select(PushBatch).where(PushBatch.run_id == run_id).order_by(PushBatch.seq).limit(BATCHES_SHOWN)
    return list(session.scalars(query))


def batch_count(session: Session, run_id: int) -> int:
    """How many batches the run has."""
    return session.scalar(select(func.count()).where(PushBatch.run_id == run_id)) or 0


def claims(session: Session, run_id: int) -> list[StageClaim]:
    """The run's first claims in order; none of a run older than their table."""
    query = select(StageClaim).where(StageClaim.run_id == run_id).order_by(StageClaim.fence)
    return list(session.scalars(query.limit(CLAIMS_SHOWN)))


def bad_runs(session: Session, binding_ids: Sequence[int]) -> dict[int, int]:
    """The run that these bindings' last result is, where it is a bad one."""
    found = select(CohortBinding.id, CohortBinding.bad_run_id).where(
        CohortBinding.id.in_(binding_ids), CohortBinding.bad_run_id.is_not(None)
    )
    return {binding: run for binding, run in session.execute(found) if run is not None}
