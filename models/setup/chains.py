"""Chains: a binding that runs after another one's good runs.

"Good" is succeeded or partial: a partial run has pushed all that can be pushed, and one refused row must not stop
what follows it every night. The follower's run is made in the transaction that ends the run before it, and bears
that run's `scheduled_for`: UNIQUE(binding, scheduled_for, trigger) is why there is one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.database import bulk, lock
from models.errors import ConfigurationError, TerminalError
from models.runs import new_runs
from models.setup.walltime import day_begins, zone_of
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Tier, Trigger

GOOD = frozenset({RunState.SUCCEEDED, RunState.PARTIAL})


def follow(session: Session, binding: CohortBinding, before: CohortBinding | None) -> None:
    """Let `binding` run after `before`, or after none any more; a circle is refused by its names."""
    lock(session, "chains")  # two changes at once could close a circle that neither of them sees
    names, one = [binding.name], before
    while one is not None:
        names.append(one.name)
        if one.id == binding.id:
            raise ConfigurationError("CHAIN_CYCLE", binding=binding.name, chain=" after ".join(names))
        one = session.get(CohortBinding, one.after_id) if one.after_id is not None else None
    binding.after_id = before.id if before is not None else None


def require_last(session: Session, binding: CohortBinding) -> None:
    """Refuse to remove a binding that others run after."""
    names = session.scalars(
        select(CohortBinding.name).where(CohortBinding.after_id == binding.id).order_by(CohortBinding.name)
    ).all()
    if names:
        raise ConfigurationError("IN_USE", kind="binding", name=binding.name, used_by=", ".join(names))


def start_followers(session: Session, run: SyncRun, *, now: datetime) -> None:
    """Make the runs that follow this good one; the scheduler publishes them."""
    followers = session.scalars(
        select(CohortBinding).where(CohortBinding.after_id == run.binding_id, ~CohortBinding.paused)
    )
    for binding in followers:
        if binding.project.tier != Tier.AUDIENCES or not _in_period(binding, now):
            continue
        waits = (RunState.DEFERRED,) if binding.overlap == "queue" else ()
        for state in (RunState.QUEUED, *waits, RunState.SKIPPED):  # a constraint refuses what can't be
            if _insert(session, binding, run, state, now):
                break


def _in_period(binding: CohortBinding, now: datetime) -> bool:
    zone = zone_of(binding.timezone)
    first, last = binding.starts_on, binding.ends_on
    if first is not None and now < day_begins(first, zone):
        return False
    return last is None or now < day_begins(last + timedelta(days=1), zone)


def _insert(session: Session, binding: CohortBinding, run: SyncRun, state: RunState, now: datetime) -> bool:
    row = new_runs.row(
        binding.id,
        Trigger.CHAIN,
        state,
        scheduled_for=run.scheduled_for,
        skipped=TerminalError("OVERLAP_SKIPPED") if state is RunState.SKIPPED else None,
        now=now,
    )
    return bool(bulk.insert_missing(session, SyncRun, [row], "id"))
