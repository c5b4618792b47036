"""From the text of a cron expression to its pattern, or to the reason why it is refused.

croniter reads the fields; what it would accept though nobody means it (six fields, `R`, a date that never comes) is
refused here first, each with a hint that says what to write instead. Pure.
"""

from __future__ import annotations

import re
from calendar import isleap
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from croniter import croniter
from croniter.croniter import CroniterError

from models.errors import ConfigurationError
from scheduler.pattern import DAY_NAMES, MONTH_NAMES, Pattern

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
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_OF_WEEK = tuple(name[:3].lower() for name in DAY_NAMES)
_MONTHS = tuple(name[:3].lower() for name in MONTH_NAMES)


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


def check_text(cron: str) -> str:
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


def pattern_of(text: str, key: str) -> Pattern:
    """The pattern of a text that was checked; `key` spreads its `H`."""
    return _compile(text, key if _is_hashed(text) else "")


@lru_cache(maxsize=CACHED_PATTERNS)
def _is_hashed(text: str) -> bool:
    return any(_HASHED.fullmatch(field) for field in text.lower().split())


@lru_cache(maxsize=CACHED_PATTERNS)
def _compile(text: str, key: str) -> Pattern:
    """The pattern of one text, parsed once whoever it belongs to: a parse costs as much as twenty steps."""
    fields = _split(check_text(text))
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


def _build(fields: tuple[str, ...], values: list[list[int | str]], nth: dict[int, set[int | str]]) -> Pattern:
    minutes, hours, days, months, weekdays = (
        frozenset(range(field.low, field.high + 1))
        if "*" in found
        else frozenset(value for value in found if isinstance(value, int))
        for field, found in zip(_FIELDS, values, strict=True)
    )
    return Pattern(
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


def _check_occurs(cron: str, pattern: Pattern) -> None:
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


def _occurs_in(pattern: Pattern, year: int) -> bool:
    return pattern.first_day(date(year, 1, 1), date(year, 12, 31)) is not None
