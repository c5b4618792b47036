"""What will run when, and what it will cost of Amplitude's monthly downloads.

The same rules as at work: occurrences by `scheduler/cron.py`, dates, jitter and blackouts by policy, chains, and
downloads shared as `models/membership/snapshots.py` shares them. What can't be foreseen (a failure, a retry, an
overlap, a manual run) is not included. Pure but for reading rows that are handed in: `now` is an argument.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from models.naming import schedule_key
from models.setup.blackouts import Blackout, blackout_until, parse_blackouts
from models.tables import CohortBinding
from models.types import Feed, Tier
from scheduler.cron import Schedule
from scheduler.policy import Period, jitter

MOST = 50_000  # occurrences of one binding: a month of minutes
_INSTANT = timedelta(microseconds=1)


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


@dataclass(frozen=True)
class Expected:
    """A run to come. `download`: it is the one that asks for the cohort; None: its binding never does."""

    at: datetime
    binding: Planned
    occurrence: datetime
    chained: bool = False
    download: bool | None = None


@dataclass
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
) -> list[Expected]:
    """The runs from now to `until`, in order, with who of them pays for a download."""
    known = list(bindings)
    followers: dict[int, list[Planned]] = defaultdict(list)
    for one in known:
        if one.after is not None:
            followers[one.after].append(one)
    runs = [run for one in known for run in _occurrences(one, now, until)]
    runs += [later for run in runs for later in _chain(run, followers)]
    runs = sorted(
        (run for run in runs if run.at <= until), key=lambda run: (run.at, run.chained, run.binding.id)
    )
    return list(_priced(runs, fresh))


def downloads(runs: Sequence[Expected], source: str) -> Counter[str]:
    """Downloads of a source by month (UTC), such as 2026-12."""
    return Counter(f"{run.at:%Y-%m}" for run in runs if run.download and run.binding.source == source)


def next_month(now: datetime, months: int = 1) -> datetime:
    """The beginning of that month from now, UTC."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(months):
        first = (first + timedelta(days=32)).replace(day=1)
    return first


def _occurrences(one: Planned, now: datetime, until: datetime) -> Iterator[Expected]:
    if one.schedule is None:
        return
    cursor = now if one.since is None else max(one.since, now - timedelta(days=1)) - _INSTANT
    for _ in range(MOST):
        found = one.period.next_after(one.schedule, cursor)
        if found is None or found > until:
            return
        yield Expected(_start(one, max(now, found + one.delay)), one, found)
        cursor = found


def _chain(run: Expected, followers: dict[int, list[Planned]]) -> Iterator[Expected]:
    for one in followers.get(run.binding.id, ()):
        first, last = one.period.start, one.period.end
        if (first is None or run.at >= first) and (last is None or run.at <= last):
            later = Expected(_start(one, run.at), one, run.occurrence, chained=True)
            yield later
            yield from _chain(later, followers)


def _start(one: Planned, at: datetime) -> datetime:
    return (blackout_until(one.blackouts, one.timezone, at) if one.blackouts else None) or at


def _priced(runs: Iterable[Expected], fresh: timedelta) -> Iterator[Expected]:
    made: dict[tuple[str, tuple[str, str]], list[_Download]] = defaultdict(list)
    for run in runs:
        one = run.binding
        if not one.costs:
            yield run
            continue
        group = made[one.source, one.cohort]
        slack = timedelta() if run.chained else fresh
        shared = _shared(group, one.id, run.occurrence - slack)
        if shared is None:
            shared = _Download(run.at)
            group.append(shared)
        yield Expected(run.at, one, run.occurrence, run.chained, download=not shared.users)
        shared.users.add(one.id)


def _shared(group: list[_Download], binding: int, since: datetime) -> _Download | None:
    """The newest download that serves the binding too."""
    for made in reversed(group):
        if made.at < since:
            return None
        if binding not in made.users:
            return made
    return None
