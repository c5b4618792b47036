"""What to do about an occurrence: run it, leave it, wait with it. Decisions only.

Every function is arithmetic on its arguments, so that a decision can be repeated from what the database holds
and two schedulers that look at the same row decide the same. Nothing here may read a clock, draw a random
number or touch a table: `now` is an argument.

An occurrence is named by its nominal instant. Jitter, a blackout and catching up move when its run starts,
never that name, because UNIQUE(binding, scheduled_for, trigger) is what makes a tick happen once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import blake2b
from typing import Literal

from models.runs.missed import COUNTED
from models.setup.walltime import day_begins, zone_of
from scheduler.cron import Schedule

Catchup = Literal["latest", "none"]
Overlap = Literal["skip", "queue"]
Decision = Literal["run", "skip", "queue"]

GRACE = timedelta(seconds=90)  # a minute, and a slow tick: later than that an occurrence was missed

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Period:
    """The first and last instant of a binding's schedule, both counted in; None is open."""

    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def of_days(cls, first: date | None, last: date | None, timezone: str) -> Period:
        """From the beginning of the first day to the end of the last one, as that zone's calendar has them."""
        zone = zone_of(timezone)
        return cls(
            None if first is None else day_begins(first, zone),
            None if last is None else day_begins(last + timedelta(days=1), zone) - _INSTANT,
        )

    def next_after(self, schedule: Schedule, instant: datetime) -> datetime | None:
        """The first occurrence of the period later than `instant`; None when the period holds no more."""
        if self.start is not None:
            instant = max(instant, self.start - _INSTANT)
        if self.end is not None and instant >= self.end:
            return None
        found = schedule.next_after(instant)
        return None if self.end is not None and found > self.end else found

    def occurrences(self, schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
        """The occurrences of the period later than `after`, up to `until`."""
        after = after if self.start is None else max(after, self.start - _INSTANT)
        return schedule.occurrences(after, until if self.end is None else min(until, self.end))


ALWAYS = Period()


@dataclass(frozen=True, slots=True)
class Due:
    """What a scheduler has to do for one binding now, and what to store.

    `occurrence` is the nominal instant of the newest that is due. A run is made for it, unless it is `late`: then it
    is itself one of the `missed`, which are counted up to COUNTED + 1, the first of them at `missed_since`.
    `next_occurrence` is the next nominal instant and `next_due_at` that plus the binding's jitter, later than
    now; both are None when the period has ended.
    """

    next_occurrence: datetime | None
    next_due_at: datetime | None
    occurrence: datetime | None = None
    late: bool = False
    missed: int = 0
    missed_since: datetime | None = None


def due_occurrences(
    schedule: Schedule,
    next_occurrence: datetime,
    now: datetime,
    catchup: Catchup,
    window: timedelta,
    *,
    delay: timedelta = timedelta(),
    period: Period = ALWAYS,
    grace: timedelta = GRACE,
) -> Due:
    """Which occurrence to run of those since `next_occurrence`, and when to look again.

    Never more than the newest one: a sync compares with the present state, so that running an older
    occurrence too would only spend a download. `latest` runs it when it is no older than `window`; `none` only
    when it is no older than `grace`, within which nothing counts as missed. `delay` is the binding's jitter:
    an occurrence is due, and grows old, from its nominal instant plus that. The work is bounded whatever the
    schedule and the downtime.
    """
    effective = now - delay  # instead of moving every occurrence forward
    if next_occurrence > effective:
        return Due(next_occurrence, next_occurrence + delay)
    following = period.next_after(schedule, effective)
    next_due_at = None if following is None else following + delay
    since = next_occurrence if period.start is None else max(next_occurrence, period.start)
    until = effective if period.end is None else min(effective, period.end)
    newest = schedule.latest(since, until)
    if newest is None:  # the schedule or its period was changed since next_occurrence was stored
        return Due(following, next_due_at)
    late = effective - newest > (grace if catchup == "none" else max(grace, window))
    first = schedule.next_after(since - _INSTANT)
    missed = min(schedule.count(first, newest, COUNTED) + late, COUNTED + 1)
    return Due(following, next_due_at, newest, late, missed, first if missed else None)


def overlap(policy: Overlap, unfinished: bool, queued: bool) -> Decision:
    """What becomes of an occurrence while the binding's earlier runs are as they are.

    `unfinished`: a run has begun and not ended. `queued`: another waits behind it. One waiting run is enough
    whatever the policy: it will see all that a second one would.
    """
    if queued:
        return "skip"
    if not unfinished:
        return "run"
    return "queue" if policy == "queue" else "skip"


def jitter(key: str, max_seconds: int) -> timedelta:
    """How long after its occurrence a binding's run starts: 0 to `max_seconds`, the same for ever.

    From a hash, not from chance: any scheduler at any time says the same. Not Python's own hash, which
    differs from process to process.
    """
    if max_seconds <= 0:
        return timedelta()
    number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest())
    return timedelta(seconds=number % (max_seconds + 1))
