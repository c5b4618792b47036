"""What will run when, and what it will cost of Amplitude's monthly downloads.

The same rules as at work: occurrences by `scheduler/cron.py`, dates, jitter and blackouts by policy, chains, and
downloads shared as `models/membership/snapshots.py` shares them. What can't be foreseen (a failure, a retry, an
overlap, a manual run) is not included. Pure but for reading rows that are handed in: `now` is an argument.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from models.naming import schedule_key
from models.setup.blackouts import Blackout, blackout_until, parse_blackouts
from models.tables import CohortBinding
from models.types import Feed, Tier
from scheduler.cron import Schedule
from scheduler.policy import Period, jitter

MOST = 50_000  # occurrences of one binding: a month of minutes
_NO_TIME = timedelta()
_INSTANT = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_OLDEST = timedelta(
    days=9
)  # no run starts so long after its occurrence: blackouts are of a week, jitter is of a day


@dataclass(frozen=True)
class Planned:
    """What of a binding matters here."""

    id: int
    name: str
    source: str
    cohort: tuple[str, str]  # the cohort and the mapped property: who may share a download
    costs: bool
    schedule: Schedule | None
    timezone: str
    period: Period
    delay: timedelta
    blackouts: tuple[Blackout, ...]
    after: int | None
    since: datetime | None  # the next occurrence as the scheduler has it


class Expected(NamedTuple):
    """A run to come. `download`: it is the one that asks for the cohort; None: its binding never does."""

    at: datetime
    binding: Planned
    occurrence: datetime
    chained: bool
    download: bool | None


# A run before it is priced, in the order of runs: its time, whether it is chained, its binding's id, its occurrence.
_Run: TypeAlias = tuple[datetime, bool, int, datetime, Planned]


@dataclass(slots=True)
class _Download:
    at: datetime
    users: set[int] = field(default_factory=set)


def planned(row: CohortBinding) -> Planned | None:
    """A binding that runs by itself; none for one that does not."""
    if row.paused or row.project.tier != Tier.AUDIENCES or (row.cron is None and row.after_id is None):
        return None
    key = schedule_key(row.name)
    return Planned(
        id=row.id,
        name=row.name,
        source=row.project.name,
        cohort=(row.cohort_id, row.destination.contact_key_property),
        costs=row.feed != Feed.WEBHOOK,
        schedule=Schedule(row.cron, row.timezone, key) if row.cron is not None else None,
        timezone=row.timezone,
        period=Period.of_days(row.starts_on, row.ends_on, row.timezone),
        delay=jitter(key, row.jitter_seconds),
        blackouts=parse_blackouts(row.blackouts.split(",")) if row.blackouts else (),
        after=row.after_id,
        since=row.next_occurrence,
    )


def forecast(
    bindings: Iterable[Planned], *, now: datetime, until: datetime, fresh: timedelta
) -> Iterator[Expected]:
    """The runs from now to `until`, in order, with who of them pays for a download; a day of them in memory."""
    known = list(bindings)
    followers: dict[int, list[Planned]] = defaultdict(list)
    for one in known:
        if one.after is not None:
            followers[one.after].append(one)
    return _priced(_in_order(known, followers, now, until), fresh)


def downloads(runs: Iterable[Expected]) -> Counter[tuple[str, str]]:
    """Downloads by source and month (UTC), such as 2026-12."""
    months = Counter((run.binding.source, run.at.year, run.at.month) for run in runs if run.download)
    return Counter({(source, f"{year}-{month:02}"): n for (source, year, month), n in months.items()})


def next_month(now: datetime, months: int = 1) -> datetime:
    """The beginning of that month from now, UTC."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(months):
        first = (first + timedelta(days=32)).replace(day=1)
    return first


def _in_order(
    known: list[Planned], followers: dict[int, list[Planned]], now: datetime, until: datetime
) -> Iterator[_Run]:
    coming = [stream for one in known if (stream := _stream(one, now, until)) is not None]
    waiting: list[_Run] = []  # what a delay, a blackout or a chain puts off beyond its day
    end = now
    while end < until:
        end = min(until, end + _DAY)
        for stream in coming:
            runs = stream.until(end)
            waiting += [run for first in runs for run in _with_chain(first, followers)] if followers else runs
        waiting.sort()
        there = bisect_right(waiting, end, key=itemgetter(0))
        yield from waiting[:there]
        del waiting[:there]


@dataclass(slots=True)
class _Stream:
    """A binding's runs, a day at a time."""

    binding: Planned
    now: datetime
    occurrences: Iterator[datetime]
    following: datetime | None

    def until(self, end: datetime) -> Iterator[_Run]:
        """Those of the occurrences that are left, up to `end`."""
        one = self.binding
        while self.following is not None and self.following <= end:
            found = self.following
            at = max(self.now, found + one.delay)
            yield (_start(one, at) if one.blackouts else at), False, one.id, found, one
            self.following = next(self.occurrences, None)


def _stream(one: Planned, now: datetime, until: datetime) -> _Stream | None:
    if one.schedule is None:
        return None
    after = now if one.since is None else max(one.since, now - _DAY) - _INSTANT
    occurrences = islice(one.period.occurrences(one.schedule, after, until), MOST)
    return _Stream(one, now, occurrences, next(occurrences, None))


def _with_chain(run: _Run, followers: dict[int, list[Planned]]) -> Iterator[_Run]:
    yield run
    at, _, binding, occurrence, _ = run
    for one in followers.get(binding, ()):
        first, last = one.period.start, one.period.end
        if (first is None or at >= first) and (last is None or at <= last):
            yield from _with_chain((_start(one, at), True, one.id, occurrence, one), followers)


def _start(one: Planned, at: datetime) -> datetime:
    return (blackout_until(one.blackouts, one.timezone, at) if one.blackouts else None) or at


def _priced(runs: Iterable[_Run], fresh: timedelta) -> Iterator[Expected]:
    made: dict[tuple[str, tuple[str, str]], deque[_Download]] = defaultdict(deque)
    for at, chained, binding, occurrence, one in runs:
        if not one.costs:
            yield Expected(at, one, occurrence, chained, None)
            continue
        group = made[one.source, one.cohort]
        while group and group[0].at < at - _OLDEST - fresh:
            group.popleft()
        slack = _NO_TIME if chained else fresh
        shared = _shared(group, binding, occurrence - slack)
        if shared is None:
            shared = _Download(at)
            group.append(shared)
        yield Expected(at, one, occurrence, chained, not shared.users)
        shared.users.add(binding)


def _shared(group: deque[_Download], binding: int, since: datetime) -> _Download | None:
    """The newest download that serves the binding too."""
    for made in reversed(group):
        if made.at < since:
            return None
        if binding not in made.users:
            return made
    return None
