"""Schedules and lengths of time as they are typed, and the timing of a binding that they mean."""

from __future__ import annotations

import re
from datetime import datetime

from models.bindings import Timing
from models.errors import ConfigurationError
from models.naming import name_key
from models.tables import CohortBinding

_LENGTH = re.compile(r"(\d{1,9})\s*(s|m|min|h|d)?", re.ASCII)
_UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
LONGEST_SECONDS = 366 * 86_400


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


def timing(
    name: str,
    *,
    cron: str | None,
    timezone: str,
    overlap: str,
    catchup: str,
    catchup_window_seconds: int,
    jitter_seconds: int,
    now: datetime,
) -> Timing:
    """The timing of the binding `name`, with its first occurrence after `now`; without a cron, on demand."""
    from scheduler.cron import Schedule
    from scheduler.policy import jitter

    occurrence = due = None
    # Without a cron the zone is kept for the day there is one, so it is checked all the same.
    schedule = Schedule.parse(cron or "@daily", timezone, schedule_key(name))
    if cron is not None:
        occurrence = schedule.next_after(now)
        due = occurrence + jitter(schedule.key, jitter_seconds)
    return Timing(
        cron=schedule.cron if cron is not None else None,
        timezone=timezone,
        next_occurrence=occurrence,
        next_due_at=due,
        overlap=overlap,
        catchup=catchup,
        catchup_window_seconds=catchup_window_seconds,
        jitter_seconds=jitter_seconds,
    )


def timing_of(binding: CohortBinding, now: datetime, **changed: object) -> Timing:
    """A stored binding's timing from now on, with what is changed (`name` too: `H` and jitter spread by it)."""
    given: dict[str, object] = {
        "name": binding.name,
        "cron": binding.cron,
        "timezone": binding.timezone,
        "overlap": binding.overlap,
        "catchup": binding.catchup,
        "catchup_window_seconds": binding.catchup_window_seconds,
        "jitter_seconds": binding.jitter_seconds,
        **changed,
    }
    return timing(now=now, **given)  # type: ignore[arg-type]


def schedule_key(name: str) -> str:
    """What spreads bindings of one cron text over its `H` and over the jitter."""
    return f"binding:{name_key(name)}"


def in_words(binding: CohortBinding) -> str:
    """When it runs, for a person."""
    if binding.cron is None:
        return "on demand"
    from scheduler.cron import Schedule

    return Schedule(binding.cron, binding.timezone, schedule_key(binding.name)).describe()
