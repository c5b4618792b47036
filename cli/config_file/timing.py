"""Schedules and lengths of time as they are typed, and the timing of a binding that they mean."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from models.errors import ConfigurationError
from models.naming import schedule_key
from models.setup.bindings import Timing
from models.setup.blackouts import parse_blackouts
from models.tables import CohortBinding

_LENGTH = re.compile(r"(\d{1,9})\s*(s|m|min|h|d)?", re.ASCII)
_UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
LONGEST_SECONDS = 366 * 86_400
BLACKOUTS_MAX = 400
_Day = TypeVar("_Day", date, datetime)

MOVING = ("cron", "timezone", "jitter_seconds", "starts_on", "ends_on")


def seconds(field: str, given: str) -> int:
    """`90`, `90s`, `15m`, `6h` or `2d` in seconds."""
    found = _LENGTH.fullmatch(given.strip().lower())
    length = int(found[1]) * _UNITS[found[2]] if found else -1
    if not 0 <= length <= LONGEST_SECONDS:
        raise ConfigurationError(
            "SETTING_INVALID",
            field=field,
            value=given,
            hint="Give seconds, or a number with s, m, h or d, such as 6h; a year at most.",
        )
    return length


def moment(given: str | None, now: datetime, field: str) -> datetime | None:
    """`6h` ago, `2026-11-25`, or `2026-11-25T06:00` (in UTC unless it names an offset); None stays None."""
    if given is None:
        return None
    if _LENGTH.fullmatch(given.strip().lower()) and not given.strip().isdigit():
        return now - timedelta(seconds=seconds(field, given))
    try:
        found = datetime.fromisoformat(given.strip())
        return _counted((found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            "SETTING_INVALID",
            field=field,
            value=given,
            hint="Give a length of time such as 6h or 7d, or a date such as 2026-11-25 or 2026-11-25T06:00.",
        ) from None


def _counted(given: _Day) -> _Day:
    """The day if a zone's midnight and the days around it exist; ValueError for the first year and the last."""
    if not date.min.year < given.year < date.max.year:
        raise ValueError(given.year)
    return given


def length(seconds: int) -> str:
    """The same as it would be typed."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def timing(
    name: str,
    *,
    cron: str | None,
    timezone: str,
    overlap: str,
    catchup: str,
    catchup_window_seconds: int,
    jitter_seconds: int,
    starts_on: date | None = None,
    ends_on: date | None = None,
    blackouts: str = "",
    now: datetime,
) -> Timing:
    """The timing of the binding `name`, with its first occurrence after `now`; without a cron, on demand."""
    from scheduler.cron import Schedule
    from scheduler.policy import Period, jitter

    occurrence = due = None
    # Without a cron the zone is kept for the day there is one, so it is checked all the same.
    schedule = Schedule.parse(cron or "@daily", timezone, schedule_key(name))
    if cron is not None:
        occurrence = Period.of_days(starts_on, ends_on, timezone).next_after(schedule, now)
        due = occurrence + jitter(schedule.key, jitter_seconds) if occurrence is not None else None
    return Timing(
        cron=schedule.cron if cron is not None else None,
        timezone=timezone,
        next_occurrence=occurrence,
        next_due_at=due,
        overlap=overlap,
        catchup=catchup,
        catchup_window_seconds=catchup_window_seconds,
        jitter_seconds=jitter_seconds,
        starts_on=starts_on,
        ends_on=ends_on,
        blackouts=blackouts,
    )


def timing_of(binding: CohortBinding, now: datetime, **changed: object) -> Timing:
    """A stored binding's timing from now on, with what is changed (`name` too: `H` and jitter spread by it)."""
    kept = [field.name for field in fields(Timing) if field.name not in {"next_occurrence", "next_due_at"}]
    given: dict[str, object] = {name: getattr(binding, name) for name in ("name", *kept)}
    return timing(now=now, **{**given, **changed})  # type: ignore[arg-type]


def updated(binding: CohortBinding, now: datetime, **changed: object) -> Timing:
    """A stored binding's timing with what is changed. What is due already stays due, unless its occurrences move.

    So a longer window that is given during a downtime still catches up, and what a changed cron names is not counted
    as missed before it was asked for.
    """
    planned = timing_of(binding, now, **changed)
    renamed = changed.get("name", binding.name) != binding.name
    if renamed or any(getattr(planned, name) != getattr(binding, name) for name in MOVING):
        return planned
    return replace(planned, next_occurrence=binding.next_occurrence, next_due_at=binding.next_due_at)


def day(field: str, given: str) -> date:
    """`2026-12-31` as a day."""
    try:
        return _counted(date.fromisoformat(given.strip()))
    except ValueError:
        raise ConfigurationError(
            "SETTING_INVALID", field=field, value=given, hint="Give a day as YYYY-MM-DD, such as 2026-12-31."
        ) from None


def windows(given: list[str]) -> str:
    """Blackouts as they are stored."""
    text = ",".join(str(window) for window in parse_blackouts(given))
    if len(text) > BLACKOUTS_MAX:
        raise ConfigurationError(
            "SETTING_INVALID", field="blackout", value=f"{text[:40]}…", hint="Give fewer windows."
        )
    return text


def require_occurrence(planned: Timing) -> None:
    """Refuse dates that leave nothing to run."""
    first, last = planned.starts_on, planned.ends_on
    backwards = first is not None and last is not None and first > last
    if backwards or (planned.cron is not None and planned.next_occurrence is None):
        raise ConfigurationError(
            "SETTING_INVALID",
            field="start, end",
            value=f"{first or ''} to {last or ''}",
            hint="No occurrence lies between them from now on.",
        )


def in_words(binding: CohortBinding) -> str:
    """When it runs, for a person."""
    words = [] if binding.after_name is None else [f"after {binding.after_name}"]
    if binding.cron is not None:
        from scheduler.cron import Schedule

        words.insert(0, Schedule(binding.cron, binding.timezone, schedule_key(binding.name)).describe())
    words += [f"from {binding.starts_on}"] * (binding.starts_on is not None)
    words += [f"to {binding.ends_on}"] * (binding.ends_on is not None)
    if binding.blackouts:
        words.append(f"no push {binding.blackouts.replace(',', ', ')} ({binding.timezone})")
    return ", ".join(words) or "on demand"
