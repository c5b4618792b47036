"""What five cron fields say, as sets of values to step through, and in words.

A value without a position: one pattern serves every binding with the same text, from any thread. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta

DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_TIMES_IN_WORDS = 6
_MINUTES, _HOURS, _DAYS = 60, 24, 31
_RANKS = ("last", "first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the five fields say, ready to step through: sets of values, never a position."""

    times: tuple[int, ...]  # minutes of the day, ascending
    months: frozenset[int]
    days: frozenset[int]
    last_day: bool
    weekdays: frozenset[int]  # 0 is Sunday
    nth_weekdays: frozenset[tuple[int, int]]  # (weekday, 1..5); 0 for the last of the month
    both_days: bool  # day-of-month and day-of-week must both match, not either
    periodic: bool  # follows real time through a change of the clock, not the wall clock once

    def matches(self, day: date) -> bool:
        """Whether the schedule has occurrences on that day."""
        if day.month not in self.months:
            return False
        if self.both_days:
            return self._of_month(day) and self._of_week(day)
        return self._of_month(day) or self._of_week(day)

    def _of_month(self, day: date) -> bool:
        if day.day in self.days:
            return True
        return self.last_day and day.day == monthrange(day.year, day.month)[1]

    def _of_week(self, day: date) -> bool:
        weekday = day.isoweekday() % 7
        if weekday in self.weekdays:
            return True
        if not self.nth_weekdays:
            return False
        if (weekday, (day.day + 6) // 7) in self.nth_weekdays:
            return True
        return (weekday, 0) in self.nth_weekdays and day.day + 7 > monthrange(day.year, day.month)[1]

    def first_day(self, day: date, until: date = date.max) -> date | None:
        """The first matching day from `day` to `until`, both counted in."""
        while day <= until:
            if self.matches(day):
                return day
            if day.month in self.months:
                day += timedelta(days=1)
            else:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        return None

    def next_wall(self, wall: datetime) -> datetime:
        """The first wall time of the pattern strictly later than `wall`, both naive."""
        today = wall.date()
        if self.matches(today):
            index = bisect_right(self.times, wall.hour * 60 + wall.minute)
            if index < len(self.times):
                return _wall(today, self.times[index])
        day = self.first_day(today + timedelta(days=1))
        if day is None:
            raise OverflowError("no occurrence before the calendar ends")
        return _wall(day, self.times[0])


def _wall(day: date, minute_of_day: int) -> datetime:
    return datetime(day.year, day.month, day.day, *divmod(minute_of_day, 60))  # noqa: DTZ001 - a wall time has no zone


def clock_words(pattern: Pattern) -> str:
    """At which times of a day."""
    times = pattern.times
    minutes = sorted({time % 60 for time in times})
    if len(times) == _HOURS * len(minutes):
        if len(minutes) > 1 and _steps(minutes, _MINUTES):
            return "every minute" if len(minutes) == _MINUTES else f"every {60 // len(minutes)} minutes"
        return "every hour at " + _joined([f":{minute:02}" for minute in minutes])
    if len(times) <= _TIMES_IN_WORDS:
        return "at " + _joined([f"{time // 60:02}:{time % 60:02}" for time in times])
    first, last = times[0], times[-1]
    return (
        f"{len(times)} times a day, from {first // 60:02}:{first % 60:02} to {last // 60:02}:{last % 60:02}"
    )


def _steps(values: list[int], size: int) -> bool:
    return size % len(values) == 0 and values == list(range(0, size, size // len(values)))


def day_words(pattern: Pattern) -> str:
    """On which days."""
    every_day = len(pattern.days) == _DAYS
    every_weekday = not pattern.nth_weekdays and {0, 1, 2, 3, 4, 5, 6} <= pattern.weekdays
    of_month = "on day " + _joined([*map(str, sorted(pattern.days)), *["the last"] * pattern.last_day])
    if not pattern.days:
        of_month = "on the last day of the month"
    of_week = "on " + _listed(pattern.weekdays - {7}, DAY_NAMES, 0)
    if pattern.nth_weekdays:
        ranked = sorted(pattern.nth_weekdays, key=lambda day: (day[1] or 6, day[0]))
        of_week = (
            "on the "
            + _joined([f"{_RANKS[rank]} {DAY_NAMES[day]}" for day, rank in ranked])
            + " of the month"
        )
    if pattern.both_days:
        parts = [of_month] * (not every_day) + [of_week] * (not every_weekday)
        return "".join(", " + part for part in parts)
    return "" if every_day or every_weekday else f", {of_month} or {of_week}"


def _listed(values: frozenset[int], names: tuple[str, ...], first: int) -> str:
    ordered = sorted(values)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:  # noqa: PLR2004 - three make a span
        return f"{names[ordered[0] - first]} to {names[ordered[-1] - first]}"
    return _joined([names[value - first] for value in ordered])


def month_words(pattern: Pattern) -> str:
    """In which months, with a comma before it; "" for all of them."""
    if len(pattern.months) == len(MONTH_NAMES):
        return ""
    return ", in " + _listed(pattern.months, MONTH_NAMES, 1)


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
