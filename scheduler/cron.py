"""When a binding is due: five cron fields read in the binding's time zone.

croniter reads the text (names, `L`, `#`, `H` spread by key) and nothing more. The stepping is ours, for three
reasons, each shown by a test: croniter fires a fixed-hour job twice on the day clocks go back, adds a run
nobody asked for on the day they go forward (`0 */2 * * *` at 03:00), and keeps the search position inside the
object, which a cache shared by threads can't have. `docs/scheduling.md` states the rules and where they
differ from cronsim, which is the model of what Debian's cron does.

Pure: no clock, no database, no randomness. `now` is always an argument, so every answer can be repeated.
(Zone rules are read from the installed IANA data by zoneinfo, once a zone.) It must never hold an object that
changes while it is asked: one parsed pattern serves every binding with the same text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from calendar import isleap, monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterError

from models.errors import ConfigurationError
from models.walltime import first_instant, instants, offset, turn, wall_at, zone_of

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MAX_LENGTH = 200  # longer than any schedule a person writes, short enough for an error message
MAX_SILENT_YEARS = 8  # 29 February: 2096 is followed by 2104
CACHED_PATTERNS = 16_384  # 10,000 bindings may be due in one minute, each with an `H` of its own

_EXAMPLE = "Give minute, hour, day-of-month, month and day-of-week, such as `30 6 * * mon-fri`."
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_INSTANT = timedelta(microseconds=1)
_FOLD_AHEAD = timedelta(hours=25)  # no clock was ever put back further than a day
_TIMES_IN_WORDS = 6
_RANKS = ("last", "first", "second", "third", "fourth", "fifth")
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS_OF_WEEK = tuple(name[:3].lower() for name in _DAY_NAMES)
_MONTHS = tuple(name[:3].lower() for name in _MONTH_NAMES)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    allowed: str
    names: dict[str, int]

    @property
    def size(self) -> int:
        """How many different values there are: Sunday is both 0 and 7."""
        return 7 if self.name == "day-of-week" else self.high - self.low + 1


_FIELDS = (
    _Field("minute", 0, 59, "0-59", {}),
    _Field("hour", 0, 23, "0-23", {}),
    _Field("day-of-month", 1, 31, "1-31 or L (the last day)", {}),
    _Field("month", 1, 12, "1-12 or jan-dec", {name: n for n, name in enumerate(_MONTHS, 1)}),
    _Field(
        "day-of-week",
        0,
        7,
        "0-7 (0 and 7 are Sunday), sun-sat, fri#2 (the second Friday) or L5 (the last Friday)",
        {name: n for n, name in enumerate(_DAYS_OF_WEEK)},
    ),
)

_HASHED = re.compile(r"h(?:\(\d+-\d+\))?(?:/\d+)?")
_RANDOM = re.compile(r"(?:^|,)r(?![a-z])")
_RANGE = re.compile(r"([a-z0-9]+)-([a-z0-9]+)(/\d+)?")
_STEP = re.compile(r"/(\d+)$")
_NUMBER = re.compile(r"(?<![#/\w])\d+")  # not a step, not the 2 of fri#2, not the 5 of L5


@dataclass(frozen=True, slots=True)
class Schedule:
    """When one binding is due. A value: equal texts, zones and keys are one schedule.

    `key` is the binding's stable identity, by which `H` spreads; it must never change, or the binding moves.
    """

    cron: str
    timezone: str
    key: str

    @classmethod
    def parse(cls, cron: str, timezone: str, key: str) -> Schedule:
        """The schedule of checked text; CRON_INVALID says which part is wrong, TIMEZONE_INVALID likewise."""
        text = _check_text(cron)
        zone_of(timezone)
        _pattern_of(text, key)
        return cls(text, timezone, key)

    def next_after(self, instant: datetime) -> datetime:
        """The first occurrence strictly later than `instant`, both aware; the answer is in UTC."""
        after = _utc(instant)
        zone = zone_of(self.timezone)
        pattern = _pattern_of(self.cron, self.key)
        if pattern.periodic:
            return _next_periodic(pattern, zone, after)
        return _next_fixed(pattern, zone, after)

    def between(self, start: datetime, end: datetime, limit: int) -> list[datetime]:
        """The occurrences later than `start` and not later than `end`, the first `limit` of them."""
        found: list[datetime] = []
        cursor = _utc(start)
        last = _utc(end)
        while len(found) < limit:
            cursor = self.next_after(cursor)
            if cursor > last:
                break
            found.append(cursor)
        return found

    def describe(self) -> str:
        """The schedule as a sentence for a person: `at 06:30, every day (Europe/Berlin)`."""
        pattern = _pattern_of(self.cron, self.key)
        months = (
            "" if len(pattern.months) == len(_MONTHS) else ", in " + _listed(pattern.months, _MONTH_NAMES, 1)
        )
        days = _day_words(pattern)
        times = _clock_words(pattern)
        if not days + months and not times.startswith("every"):
            days = ", every day"
        return f"{times}{days}{months} ({self.timezone})"

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        """The newest occurrence from `since` to `until`, both counted in; None when there is none.

        The work grows with the logarithm of the stretch: a binding that was down for a year of minutes
        asks for a few dozen occurrences, not for half a million.
        """
        last = _utc(until)
        floor = _utc(since) - _INSTANT
        beyond, step = last, _MINUTE
        while beyond > floor:
            start = max(last - step, floor)
            found = self.next_after(start)
            if found <= last:
                return self._newest(found, beyond, last)
            beyond, step = start, step * 2
        return None

    def _newest(self, found: datetime, beyond: datetime, last: datetime) -> datetime:
        """Halve the stretch between an occurrence and an instant after which none is left."""
        while (following := self.next_after(found)) <= last:
            middle = following + (beyond - following) / 2
            later = self.next_after(middle)
            if later <= last:
                found = later
            else:
                found, beyond = following, middle
        return found


@dataclass(frozen=True, slots=True)
class _Pattern:
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


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(UTC)


# --- in words ---------------------------------------------------------------------------------------------


def _clock_words(pattern: _Pattern) -> str:
    times = pattern.times
    minutes = sorted({time % 60 for time in times})
    if len(times) == _FIELDS[1].size * len(minutes):
        if len(minutes) > 1 and _steps(minutes, _FIELDS[0].size):
            return (
                "every minute" if len(minutes) == _FIELDS[0].size else f"every {60 // len(minutes)} minutes"
            )
        return "every hour at " + _joined([f":{minute:02}" for minute in minutes])
    if len(times) <= _TIMES_IN_WORDS:
        return "at " + _joined([f"{time // 60:02}:{time % 60:02}" for time in times])
    first, last = times[0], times[-1]
    return (
        f"{len(times)} times a day, from {first // 60:02}:{first % 60:02} to {last // 60:02}:{last % 60:02}"
    )


def _steps(values: list[int], size: int) -> bool:
    return size % len(values) == 0 and values == list(range(0, size, size // len(values)))


def _day_words(pattern: _Pattern) -> str:
    every_day = len(pattern.days) == _FIELDS[2].high
    every_weekday = not pattern.nth_weekdays and {0, 1, 2, 3, 4, 5, 6} <= pattern.weekdays
    of_month = "on day " + _joined([*map(str, sorted(pattern.days)), *["the last"] * pattern.last_day])
    if not pattern.days:
        of_month = "on the last day of the month"
    of_week = "on " + _listed(pattern.weekdays - {7}, _DAY_NAMES, 0)
    if pattern.nth_weekdays:
        ranked = sorted(pattern.nth_weekdays, key=lambda day: (day[1] or 6, day[0]))
        of_week = (
            "on the "
            + _joined([f"{_RANKS[rank]} {_DAY_NAMES[day]}" for day, rank in ranked])
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


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


# --- from wall time to instants ---------------------------------------------------------------------------


def _next_fixed(pattern: _Pattern, zone: ZoneInfo, after: datetime) -> datetime:
    """A wall time happens once: the first of a repeated one, and the change itself for a skipped one."""
    wall = wall_at(after, zone)
    while True:
        wall = pattern.next_wall(wall)
        instant = first_instant(wall, zone)
        if instant > after:  # false only in a repeated hour, for what its first pass has done already
            return instant


def _next_periodic(pattern: _Pattern, zone: ZoneInfo, after: datetime) -> datetime:
    """Every real instant whose wall time matches: twice in a repeated hour, never for a skipped time."""
    wall = wall_at(after, zone)
    back = _next_turn_back(zone, after)
    if back is not None:
        candidate = (pattern.next_wall(wall) - offset(zone, after)).replace(tzinfo=UTC)
        if candidate < back:
            return candidate
        after = back - _INSTANT
        wall = wall_at(back, zone) - _INSTANT  # from here the wall clock runs through some times again
    while True:
        wall = pattern.next_wall(wall)
        for instant in instants(wall, zone):
            if instant > after:
                return instant


def _next_turn_back(zone: ZoneInfo, after: datetime) -> datetime | None:
    """The instant within a day at which clocks are put back, if there is one."""
    horizon = after + _FOLD_AHEAD
    if offset(zone, horizon) >= offset(zone, after):
        return None
    return turn(zone, after, horizon)


# --- from text to the pattern -----------------------------------------------------------------------------


def _check_text(cron: str) -> str:
    """The text with single spaces, when it can be cron at all."""
    if len(cron) > MAX_LENGTH:
        raise _invalid(cron[:MAX_LENGTH], f"It is longer than {MAX_LENGTH} characters.")
    text = " ".join(cron.split())
    if not text:
        raise _invalid(cron, f"It is empty. {_EXAMPLE}")
    if not cron.isascii():
        raise _invalid(
            cron, "It holds characters outside ASCII: a space, dash or digit that only looks right?"
        )
    return text


def _split(text: str) -> tuple[str, ...]:
    """The five fields in lower case, aliases replaced.

    The aliases are replaced here because croniter, given a key, reads `@daily` as six hashed fields.
    """
    lower = text.lower()
    if lower.startswith("@"):
        if lower not in ALIASES:
            raise _invalid(text, f"The aliases are {', '.join(ALIASES)}.")
        lower = ALIASES[lower]
    fields = tuple(lower.split())
    if len(fields) in (6, 7):
        raise _invalid(text, f"It has {len(fields)} fields; seconds and years are not supported. {_EXAMPLE}")
    if len(fields) != len(_FIELDS):
        raise _invalid(text, f"It has {len(fields)} field(s) instead of five. {_EXAMPLE}")
    return fields


def _pattern_of(text: str, key: str) -> _Pattern:
    return _compile(text, key if _is_hashed(text) else "")


@lru_cache(maxsize=CACHED_PATTERNS)
def _is_hashed(text: str) -> bool:
    return any(_HASHED.fullmatch(field) for field in text.lower().split())


@lru_cache(maxsize=CACHED_PATTERNS)
def _compile(text: str, key: str) -> _Pattern:
    """The pattern of one text, parsed once whoever it belongs to: a parse costs as much as twenty steps."""
    fields = _split(_check_text(text))
    for field, part in zip(_FIELDS, fields, strict=True):
        _check_field(text, field, part)
    try:
        values, nth = croniter.expand(" ".join(fields), hash_id=key.encode())
    except CroniterError as error:
        raise _invalid(text, _culprit(fields, key)) from error
    if nth and set(values[4]) != set(nth) and len(nth) < _FIELDS[4].size:
        raise _invalid(text, "The day-of-week field can't mix plain weekdays with # or L. Use two bindings.")
    pattern = _build(fields, values, nth)
    _check_occurs(text, pattern)
    return pattern


def _build(
    fields: tuple[str, ...], values: list[list[int | str]], nth: dict[int, set[int | str]]
) -> _Pattern:
    minutes, hours, days, months, weekdays = (
        frozenset(range(field.low, field.high + 1))
        if "*" in found
        else frozenset(value for value in found if isinstance(value, int))
        for field, found in zip(_FIELDS, values, strict=True)
    )
    return _Pattern(
        times=tuple(hour * 60 + minute for hour in sorted(hours) for minute in sorted(minutes)),
        months=months,
        days=days,
        last_day="l" in values[2],
        weekdays=frozenset() if nth else weekdays,
        nth_weekdays=frozenset((day, n if isinstance(n, int) else 0) for day in nth for n in nth[day]),
        both_days=fields[2].startswith("*") or fields[4].startswith("*"),
        periodic=_is_periodic(fields[1], len(hours)),
    )


def _is_periodic(hour: str, different: int) -> bool:
    """Whether the hour field asks for a rhythm (`*`, `*/2`, `H/6`, 0-23) rather than for hours of the day.

    A step that leaves one hour (`*/24`) is an hour of the day: a daily run must not vanish with a skipped hour.
    """
    rhythm = hour.startswith("*") or (hour.startswith("h") and "/" in hour)
    return different == _FIELDS[1].size or (rhythm and different > 1)


# --- what is refused, and why -----------------------------------------------------------------------------


def _invalid(cron: str, hint: str) -> ConfigurationError:
    return ConfigurationError("CRON_INVALID", cron=cron, hint=hint)


def _check_field(cron: str, field: _Field, text: str) -> None:
    """What croniter takes but nobody can mean, and what deserves a better reason than croniter's."""
    if _RANDOM.search(text):
        raise _invalid(cron, "R picks another time at every start. Use H, which stays with the binding.")
    if "?" in text:
        raise _invalid(cron, f"? in the {field.name} field is not supported. Use * instead.")
    if field.name == "day-of-month" and "w" in text:
        raise _invalid(cron, "W (the nearest working day) is not supported.")
    for number in map(int, _NUMBER.findall(text)):
        if not field.low <= number <= field.high:
            raise _invalid(cron, f"{number} is out of range for the {field.name} field: {field.allowed}.")
    for item in text.split(","):
        _check_item(cron, field, item)


def _check_item(cron: str, field: _Field, item: str) -> None:
    step = _STEP.search(item)
    if step and not 1 <= int(step[1]) <= field.size:
        # croniter, like cron, would take `*/90` in the minute field for "once an hour".
        raise _invalid(cron, f"A step of {step[1]} does not fit the {field.name} field: 1 to {field.size}.")
    span = _RANGE.fullmatch(item)
    if span is None:
        return
    low, high = _number(field, span[1]), _number(field, span[2])
    if low is None or high is None:
        return
    if low == high or (low, high) == (7, 0):
        # croniter takes an equal range for the whole cycle, cron for the one value.
        raise _invalid(cron, f"{item} is a range of one value. Write {span[1]}, or * for all.")
    if low > high and span[3]:
        raise _invalid(cron, f"{item}: a range that wraps around can't have a step. Write the values out.")


def _number(field: _Field, text: str) -> int | None:
    if field.name == "day-of-month" and text == "l":
        return field.high
    if text.isdigit():
        return int(text)
    return field.names.get(text)


def _culprit(fields: tuple[str, ...], key: str) -> str:
    """Which field croniter can't read: each is tried alone, as its own messages name none."""
    for index, (field, text) in enumerate(zip(_FIELDS, fields, strict=True)):
        alone = ["*"] * len(fields)
        alone[index] = text
        try:
            croniter.expand(" ".join(alone), hash_id=key.encode())
        except CroniterError:
            return f"The {field.name} field {text!r} can't be read. It takes {field.allowed}."
    return _EXAMPLE


def _check_occurs(cron: str, pattern: _Pattern) -> None:
    """Refuse what never happens, or stays silent for longer than MAX_SILENT_YEARS.

    The Gregorian calendar repeats after 400 years and knows fourteen kinds of year, so looking at one of each
    kind settles it for ever and for any start, without a clock.
    """
    if pattern.days and not pattern.last_day and min(pattern.days) > max(map(_longest, pattern.months)):
        raise _invalid(cron, "That date does not exist in any year.")
    kinds = {_kind(year): _occurs_in(pattern, year) for year in range(2001, 2029)}
    if all(kinds.values()):
        return
    if not any(kinds.values()):
        raise _invalid(cron, "That date does not exist in any year.")
    silent = longest = 0
    for year in range(2000, 2000 + 2 * 400):
        silent = 0 if kinds[_kind(year)] else silent + 1
        longest = max(longest, silent)
    if longest >= MAX_SILENT_YEARS:
        raise _invalid(cron, f"It can stay silent for more than {MAX_SILENT_YEARS} years.")


def _longest(month: int) -> int:
    return _LONGEST_MONTH[month - 1]


def _kind(year: int) -> tuple[int, bool]:
    return date(year, 1, 1).weekday(), isleap(year)


def _occurs_in(pattern: _Pattern, year: int) -> bool:
    return pattern.first_day(date(year, 1, 1), date(year, 12, 31)) is not None
