"""What the end of a run brings about: a retry, a pause, and the runs of bindings that follow.

In the very transaction that ends the run, so that neither a kill nor a lost message can part them. Who makes
the retry when its time has come is the scheduler: `models/runs/retries.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from models import audit
from models.errors import SyncError
from models.tables import CohortBinding, SyncRun

ACTOR = "worker"


@dataclass(frozen=True)
class Policy:
    """How many retries follow one occurrence, and how many failed ones in a row pause a binding (0: never)."""

    retry_runs: int
    pause_after: int


def spared(run: SyncRun, error: SyncError) -> bool:
    """Whether the error is no failure of a run that nobody asked for by hand."""
    return error.entry.spared and not run.trigger.asked


def after_failure(
    session: Session, run: SyncRun, error: SyncError, policy: Policy, *, delay: float, now: datetime
) -> None:
    """Note when a failed run is to be retried, or pause its binding.

    A run that somebody asked for has a person looking at it. `run` has ended and is counted in the binding's failures.
    """
    binding = session.get_one(CohortBinding, run.binding_id)
    if run.trigger.asked or binding.paused:
        return
    if policy.pause_after and binding.failures_in_row >= policy.pause_after:
        reason = f"{binding.failures_in_row} failures in a row, the last one {error.code}: {error.message}"
        binding.paused, binding.pause_reason = True, reason
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
    elif error.passing and run.retry < policy.retry_runs:
        run.retry_at = now + timedelta(seconds=delay)
