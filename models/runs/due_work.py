"""Whether a scheduler has anything to do: the one question that it asks twice a second, in one statement.

The statement is made once. Of the 4 ms that a tick without work took, making the same statements anew was 3
(2026-11). What is to be done is read by whoever does it: `models/runs/schedule.py`, `models/runs/retries.py` and
`models/runs/outbox.py`, whose conditions these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from models.runs import holds, outbox, retries, schedule, slots
from models.types import UtcDateTime


@dataclass(frozen=True, slots=True)
class DueWork:
    """What there is to do.

    `bindings` are due; deferred runs are `startable`; `retries` are due; `held` runs have reached their end. `publish`:
    runs need a message. `asleep`: runs want a slot. `next_wake`: when the next run wakes by itself.
    """

    bindings: bool
    startable: bool
    retries: bool
    held: bool
    publish: bool
    asleep: bool
    next_wake: datetime | None

    @property
    def decide(self) -> bool:
        """Whether runs are to be made, started or ended."""
        return self.bindings or self.startable or self.retries or self.held


def look(session: Session, now: datetime, stale: timedelta) -> DueWork:
    """Ask; a message published `stale` ago may be lost. A few entries of indexes."""
    due, startable, retry, held_until, asleep, next_wake, *unpublished = session.execute(
        _question(), {"now": now, "lost": now - stale}
    ).one()
    return DueWork(
        bindings=due is not None and due <= now,
        startable=bool(startable),
        retries=bool(retry),
        held=held_until is not None and held_until <= now,
        publish=any(run is not None for run in unpublished),
        asleep=asleep is not None,
        next_wake=next_wake,
    )


@cache
def _question() -> Select[Any]:
    now: Any = bindparam("now", type_=UtcDateTime())
    lost: Any = bindparam("lost", type_=UtcDateTime())
    return select(
        schedule.first_due(),
        schedule.any_startable(),
        retries.due(now),
        holds.first_end(),
        slots.any_asleep(),
        outbox.next_wake(now),
        *outbox.any_needs(now, lost),
    )
