"""When a binding is due: five cron fields read in the binding's time zone.

croniter reads the text (names, `L`, `#`, `H` spread by key; `scheduler/cron_parser.py`) and nothing more. The
stepping is ours, for three reasons, each shown by a test: croniter fires a fixed-hour job twice on the day clocks
go back, adds a run nobody asked for on the day they go forward (`0 */2 * * *` at 03:00), and keeps the search
position inside the object, which a cache shared by threads can't have. `docs/scheduling.md` states the rules,
`docs/design/scheduling.md` where they differ from cronsim, which is the model of what Debian's cron does.

Pure: no clock, no database, no randomness. `now` is always an argument, so every answer can be repeated.
(Zone rules are read from the installed IANA data by zoneinfo, once a zone.) It must never hold an object that
changes while it is asked: one parsed pattern serves every binding with the same text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from models.setup.walltime import first_instant, instants, offset, turn, wall_at, zone_of
from scheduler.cron_parser import check_text, pattern_of
from scheduler.pattern import Pattern, clock_words, day_words, month_words

_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_NEAR_HOURS = 3
_FARTHEST_AHEAD = timedelta(hours=24)  # no zone is further ahead of UTC
_INSTANT = timedelta(microseconds=1)
_FOLD_AHEAD = timedelta(hours=25)  # no clock was ever put back further than a day


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
        text = check_text(cron)
        zone_of(timezone)
        pattern_of(text, key)
        return cls(text, timezone, key)

    def next_after(self, instant: datetime) -> datetime:
        """The first occurrence strictly later than `instant`, both aware; the answer is in UTC."""
        return _next(pattern_of(self.cron, self.key), zone_of(self.timezone), _utc(instant))

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

    def occurrences(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """What `next_after` gives again and again, up to `until`, for who wants many: a tenth of the time."""
        pattern, zone = pattern_of(self.cron, self.key), zone_of(self.timezone)
        cursor, last = _utc(after), _utc(until)
        day = wall_at(cursor, zone).date()
        while datetime.combine(day, time(), UTC) - _FARTHEST_AHEAD <= last:
            midnight = _plain_midnight(zone, day)
            if midnight is None:
                while (found := _next(pattern, zone, cursor)) <= last and wall_at(found, zone).date() <= day:
                    yield found
                    cursor = found
            elif pattern.matches(day):
                for minute in pattern.times:
                    found = midnight + minute * _MINUTE
                    if cursor < found <= last:
                        yield found
                        cursor = found
            day += _DAY

    def count(self, first: datetime, before: datetime, most: int) -> int:
        """How many occurrences from `first`, which is one, to before `before`; `most` + 1 if there are more."""
        return _count(
            pattern_of(self.cron, self.key), zone_of(self.timezone), _utc(first), _utc(before), most
        )

    def describe(self) -> str:
        """The schedule as a sentence for a person: `at 06:30, every day (Europe/Berlin)`."""
        pattern = pattern_of(self.cron, self.key)
        months = month_words(pattern)
        days = day_words(pattern)
        times = clock_words(pattern)
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


@lru_cache(maxsize=4096)
def _plain_midnight(zone: ZoneInfo, day: date) -> datetime | None:
    """The instant at which a day begins whose clocks are changed neither in it nor near it; none for another day."""
    begin = datetime.combine(day, time(), UTC)
    ahead = offset(zone, begin)
    hours = range(-_NEAR_HOURS, 24 + _NEAR_HOURS)
    same = all(offset(zone, begin - ahead + hour * _HOUR) == ahead for hour in hours)
    return begin - ahead if same else None


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(UTC)


# After a downtime many bindings ask the same: 250 that count 1,000 minutes each took a tick 4.4 s, and now 0.05 s.
@lru_cache(maxsize=1024)
def _count(pattern: Pattern, zone: ZoneInfo, first: datetime, before: datetime, most: int) -> int:
    found, cursor = 0, first
    while cursor < before and found <= most:
        found, cursor = found + 1, _next(pattern, zone, cursor)
    return found


def _next(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime:
    return (_next_periodic if pattern.periodic else _next_fixed)(pattern, zone, after)


def _next_fixed(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime:
    """A wall time happens once: the first of a repeated one, and the change itself for a skipped one."""
    wall = wall_at(after, zone)
    while True:
        wall = pattern.next_wall(wall)
        instant = first_instant(wall, zone)
        if instant > after:  # false only in a repeated hour, for what its first pass has done already
            return instant


def _next_periodic(pattern: Pattern, zone: ZoneInfo, after: datetime) -> datetime:
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
