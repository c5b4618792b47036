"""Blackouts: stretches of every day in which nothing is pushed.

The decision is made here and not in `scheduler/`, because it is the worker that must not send: the two may not
import each other, and a window is a property of the binding. Pure: `now` is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from models.errors import ConfigurationError
from models.setup.walltime import first_instant, last_instant, zone_of
from models.tables import CohortBinding

_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Blackout:
    """A stretch of every day in which no run starts, in minutes of the wall clock: start in, end out.

    An end before the start means the next morning. 24:00 is the end of the day.
    """

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Blackout:
        """`22:00-06:00`; SETTING_INVALID says what is wrong."""
        found = _WINDOW.fullmatch(text.strip())
        if found is None:
            raise _invalid(text, "Give a start and an end as hh:mm-hh:mm, such as 22:00-06:00.")
        from_hour, from_minute, to_hour, to_minute = map(int, found.groups())
        start, end = from_hour * 60 + from_minute, to_hour * 60 + to_minute
        if end > _DAY_MINUTES:
            raise _invalid(text, "The last time of a day is 24:00.")
        if start == end or (start == 0 and end == _DAY_MINUTES):
            raise _invalid(text, "Start and end are the same. To stop a binding altogether, pause it.")
        return cls(start, end)

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.start, self.end))

    def on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """The stretch that begins on `day`, as instants.

        Where clocks are put back it opens at the first of two equal times and closes at the last: silence
        that was promised is kept in both. A time that clocks skip stands for the instant they do.
        """
        opens = _at(day, self.start)
        closes = _at(day if self.end > self.start else day + timedelta(days=1), self.end)
        return first_instant(opens, zone), last_instant(closes, zone)


def parse_blackouts(texts: Iterable[str]) -> tuple[Blackout, ...]:
    """All windows of a binding; together they must leave some of the day."""
    windows = tuple(Blackout.parse(text) for text in texts)
    reached = 0
    for start, end in sorted(part for window in windows for part in _parts(window)):
        if start > reached:
            return windows
        reached = max(reached, end)
    if windows and reached >= _DAY_MINUTES:
        raise _invalid(", ".join(map(str, windows)), "Together they leave no minute of the day to run in.")
    return windows


def blackout_until(windows: Sequence[Blackout], timezone: str, now: datetime) -> datetime | None:
    """The instant the blackout that holds now ends, in UTC; None when there is none now.

    Windows that touch or overlap are one blackout.
    """
    zone = zone_of(timezone)
    today = now.astimezone(zone).date()
    days = [today + timedelta(days=n) for n in range(-1, 3)]
    until: datetime | None = None
    for opens, closes in sorted(window.on(day, zone) for window in windows for day in days):
        if opens <= (until or now) < closes:
            until = closes
    return until


def next_start(binding: CohortBinding, now: datetime) -> datetime | None:
    """When a binding's next scheduled run starts: at its occurrence, or at the end of the blackout that holds then.

    None for one that is paused or has no occurrence to come.
    """
    due = binding.next_due_at
    if binding.paused or due is None:
        return None
    blackouts = parse_blackouts(binding.blackouts.split(",")) if binding.blackouts else ()
    return blackout_until(blackouts, binding.timezone, max(due, now)) or due


def _parts(window: Blackout) -> list[tuple[int, int]]:
    if window.end > window.start:
        return [(window.start, window.end)]
    return [(window.start, _DAY_MINUTES), (0, window.end)]


def _at(day: date, minute: int) -> datetime:
    return datetime.combine(day, time()) + timedelta(minutes=minute)


def _invalid(text: str, hint: str) -> ConfigurationError:
    return ConfigurationError("SETTING_INVALID", field="blackout", value=text, hint=hint)
