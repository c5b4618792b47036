"""A binding's blackout, kept by the worker: nothing is begun and no batch is sent, what was sent is followed."""

from __future__ import annotations

from datetime import datetime

from models.errors import TransientError
from models.runs import lifecycle
from models.setup.blackouts import blackout_until, parse_blackouts
from models.tables import CohortBinding, SyncRun
from worker.claim import ClaimedRun


def until(binding: CohortBinding, now: datetime) -> datetime | None:
    """The end of the binding's blackout that holds now; none if it may push."""
    if not binding.blackouts:
        return None
    return blackout_until(parse_blackouts(binding.blackouts.split(",")), binding.timezone, now)


def wait(run: SyncRun, end: datetime) -> None:
    """Leave the run until the blackout's end, and say so."""
    shown = f"{end:%Y-%m-%d %H:%M} UTC"
    lifecycle.note_error(run, TransientError("BLACKOUT", binding=run.binding.name, until=shown))
    lifecycle.wait(run, end)


def stops(claimed: ClaimedRun) -> bool:
    """Whether the run now waits for the end of a blackout."""
    with claimed.transaction() as (_, run):
        end = until(run.binding, claimed.now)
        if end is not None:
            wait(run, end)
    return end is not None
