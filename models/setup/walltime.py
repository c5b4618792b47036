"""Wall time in a zone and the instants it means: what schedules and blackouts are both read by.

Pure: zone rules come from the installed IANA data by zoneinfo, once a zone; `now` is never asked for.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from models.errors import ConfigurationError

_SECOND = timedelta(seconds=1)


def wall_at(instant: datetime, zone: ZoneInfo) -> datetime:
    """What clocks show, naive."""
    return instant.astimezone(zone).replace(tzinfo=None)


def offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    """How far clocks are ahead of UTC."""
    return wall_at(instant, zone) - instant.replace(tzinfo=None)


def instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """The instants at which clocks show `wall`, in order: none in a gap, two in a fold."""
    found: list[datetime] = []
    for fold in (0, 1):
        instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant not in found and wall_at(instant, zone) == wall:
            found.append(instant)
    return found


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first instant at which clocks show `wall`, or, if they skip it, the instant they do."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if wall_at(instant, zone) == wall:
        return instant
    # Inside a gap fold=0 takes the offset before it and fold=1 the one after it (PEP 495), so these two
    # instants lie on either side of the change.
    return turn(zone, wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant)


def last_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The last instant at which clocks show `wall`, or, if they skip it, the instant they do."""
    shown = instants(wall, zone)
    return shown[-1] if shown else first_instant(wall, zone)


def turn(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first whole second with another offset than `before` has, given that `after` has another one."""
    before_it = offset(zone, before)
    low, high = before.replace(microsecond=0), after.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if offset(zone, middle) == before_it:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """The names of the IANA database, without those that mean another place on each machine, or none."""
    return frozenset(available_timezones() - {"Factory", "localtime", "posixrules"})


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The zone of an IANA name, or TIMEZONE_INVALID.

    Names are compared exactly: whether ZoneInfo takes `europe/berlin` depends on the file system. Zones are
    kept because ZoneInfo itself keeps no more than eight that nobody holds, and reads the others again.
    """
    if name in _zones():
        return ZoneInfo(name)
    near = [zone for zone in _zones() if zone.casefold() == name.casefold()]
    detail = f"Did you mean {near[0]}?" if near else ""
    raise ConfigurationError("TIMEZONE_INVALID", detail, timezone=name)


def day_begins(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a calendar day."""
    return first_instant(datetime.combine(day, time()), zone)
