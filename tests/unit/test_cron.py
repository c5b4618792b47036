"""Cron in a time zone, held against two judges: a walk over every minute, and cronsim (Debian's cron).

The walk states the two rules in five lines and is too slow to ship; it is right by looking at it. cronsim is
someone else's reading of the same rules; where it differs, the difference is pinned here and explained in
docs/design/scheduling.md. Zones are judged at every change of their clocks from 2021 to 2030.
"""

from __future__ import annotations

import pickle
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ConfigurationError
from scheduler import cron as cron_module
from scheduler import cron_parser
from scheduler.cron import Schedule
from scheduler.cron_parser import ALIASES

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def schedule(cron: str, timezone: str = "UTC", key: str = "binding:1") -> Schedule:
    return Schedule.parse(cron, timezone, key)


def walls(cron: str, timezone: str, start: str, hours: int = 24) -> list[str]:
    """The occurrences of the hours from `start` on, as the wall clock shows them, with the offset."""
    zone = ZoneInfo(timezone)
    begin = datetime.fromisoformat(start).replace(tzinfo=zone).astimezone(UTC)
    found = schedule(cron, timezone).between(begin - MINUTE, begin + hours * HOUR - MINUTE, 10_000)
    return [instant.astimezone(zone).strftime("%H:%M%z") for instant in found]


# --- every change of the clocks ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    zone: str
    instant: datetime
    before: timedelta
    after: timedelta

    def __str__(self) -> str:
        return f"{self.zone} at {self.instant:%Y-%m-%dT%H:%MZ}"

    @property
    def regular(self) -> bool:
        """A whole number of hours, on a whole hour of UTC-like walls: what cronsim's steps reckon with."""
        return not (self.after - self.before) % HOUR and not (self.instant + self.before).minute % 15


def offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    found = instant.astimezone(zone).utcoffset()
    assert found is not None
    return found


def changes_of(name: str) -> Iterator[Change]:
    """Found by looking every third day; the shortest time between two changes is Morocco's month."""
    zone, instant = ZoneInfo(name), at("2021-01-01T00:00Z")
    while instant < at("2031-01-01T00:00Z"):
        low, high = instant, instant + 3 * DAY
        before, after = offset(zone, low), offset(zone, high)
        instant = high
        if before == after:
            continue
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) // timedelta(seconds=2) * timedelta(seconds=1)
            low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
        yield Change(name, high, before, after)


@lru_cache(maxsize=1)
def changes() -> tuple[Change, ...]:
    """One of each: zones that change at the same instant between the same offsets are one case."""
    found: dict[tuple[object, ...], Change] = {}
    for name in sorted(available_timezones()):
        for change in changes_of(name):
            found.setdefault((change.instant, change.before, change.after), change)
    return tuple(found.values())


def test_the_changes_are_all_there() -> None:
    assert len(changes()) > 500
    shifts = {change.after - change.before for change in changes()}
    assert {HOUR, -HOUR, HOUR / 2, -HOUR / 2, 2 * HOUR, -2 * HOUR, 3 * HOUR, -3 * HOUR} <= shifts
    assert all(change.instant.second == 0 for change in changes())  # the walk below goes by minutes


# --- the judges -------------------------------------------------------------------------------------------


def walk(cron: str, zone: ZoneInfo, start: datetime, end: datetime, *, rhythm: bool) -> list[datetime]:
    """The rules, minute by minute.

    A rhythm runs at every instant whose wall time matches. Named hours run whenever the wall clock reaches or
    passes, for the first time, a wall time that matches.
    """
    reached = start.astimezone(zone).replace(tzinfo=None)
    naive = CronSim(cron, reached - DAY)  # without a zone cronsim knows no clock changes
    matching = list(takewhile(lambda wall: wall < reached + (end - start) + DAY, naive))
    found = []
    instant = start
    while instant < end:
        instant += MINUTE
        wall = instant.astimezone(zone).replace(tzinfo=None)
        passed = wall in matching if rhythm else any(reached < w <= wall for w in matching)
        if passed:
            found.append(instant)
        reached = max(reached, wall)
    return found


def cronsim(cron: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    found = (wall.astimezone(UTC) for wall in CronSim(cron, start.astimezone(zone)))
    return list(takewhile(lambda instant: instant <= end, found))


# --- the two rules ----------------------------------------------------------------------------------------


class TestClocksGoBack:
    """Berlin, 25 October 2026: after 02:59 +02:00 comes 02:00 +01:00."""

    @pytest.mark.parametrize(
        "cron", ["30 2 * * *", "30 2 25 10 *", "30 2 * * sun#4", "30 2 * * L7", "30 2,5 * * *"]
    )
    def test_a_named_hour_runs_once_at_its_first_pass(self, cron: str) -> None:
        assert walls(cron, "Europe/Berlin", "2026-10-25T00:00", 5) == ["02:30+0200"]

    def test_every_hour_is_every_real_hour(self) -> None:
        assert walls("0 * * * *", "Europe/Berlin", "2026-10-25T00:00", 6) == [
            "00:00+0200",
            "01:00+0200",
            "02:00+0200",
            "02:00+0100",
            "03:00+0100",
            "04:00+0100",
        ]

    def test_a_rhythm_runs_in_both_passes(self) -> None:
        assert walls("0 */2 * * *", "Europe/Berlin", "2026-10-25T00:00", 6) == [
            "00:00+0200",
            "02:00+0200",
            "02:00+0100",
            "04:00+0100",
        ]

    def test_the_second_pass_is_looked_ahead_to(self) -> None:
        # Asked just before the change, the next wall time in order is a year away: the repeated hour is not.
        before = at("2026-10-25T00:45Z")
        assert schedule("30 * 25 10 *", "Europe/Berlin").next_after(before) == at("2026-10-25T01:30Z")
        # In Santiago midnight is put back to 23:00: asked at 23:45, the next in order is 00:30.
        before = at("2026-04-05T02:45Z")
        assert schedule("30 */23 * * *", "America/Santiago").next_after(before) == at("2026-04-05T03:30Z")

    def test_asked_in_the_second_pass_the_first_is_over(self) -> None:
        second = at("2026-10-25T01:10Z")  # 02:10 for the second time
        assert schedule("30 2 * * *", "Europe/Berlin").next_after(second) == at("2026-10-26T01:30Z")
        assert schedule("30 * * * *", "Europe/Berlin").next_after(second) == at("2026-10-25T01:30Z")


class TestClocksGoForward:
    """Berlin, 29 March 2026: after 01:59 +01:00 comes 03:00 +02:00."""

    @pytest.mark.parametrize("cron", ["30 2 * * *", "0,15,30 2 * * *", "* 2 * * *", "0 2 29 3 *"])
    def test_a_skipped_named_hour_runs_once_at_the_change(self, cron: str) -> None:
        assert walls(cron, "Europe/Berlin", "2026-03-29T00:00", 5) == ["03:00+0200"]

    def test_what_was_skipped_and_what_follows_are_one(self) -> None:
        assert walls("0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00", 5) == ["03:00+0200"]

    def test_a_rhythm_has_no_run_for_a_skipped_hour(self) -> None:
        assert walls("0 */2 * * *", "Europe/Berlin", "2026-03-29T00:00", 5) == ["00:00+0100", "04:00+0200"]

    def test_a_skipped_midnight(self) -> None:
        assert walls("0 0 * * *", "America/Havana", "2026-03-07T12:00", 24) == ["01:00-0400"]
        assert walls("0 */12 * * *", "America/Havana", "2026-03-07T13:00", 24) == ["12:00-0400"]

    def test_half_an_hour(self) -> None:
        assert walls("15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00", 5) == ["02:30+1100"]
        assert walls("0 * * * *", "Australia/Lord_Howe", "2026-10-04T01:00", 2) == [
            "01:00+1030",
            "03:00+1100",
        ]

    def test_a_skipped_day(self) -> None:
        # Samoa had no 30 December 2011.
        assert walls("0 6 30 12 *", "Pacific/Apia", "2011-12-29T12:00", 24) == ["00:00+1400"]


# --- against the judges -----------------------------------------------------------------------------------

NAMED = [
    "30 2 * * *",
    "0 0 * * *",
    "45 1-3 * * *",
    "15,45 0,1,2,3,23 * * *",
    "30 23 L * *",
    "0,59 0-12/3 * * sun",
]
RHYTHM = ["0 * * * *", "30 * * * *", "0 */2 * * *", "15 */2 * * *", "0 */12 * * *"]


@pytest.mark.parametrize("cron", NAMED + RHYTHM)
def test_like_cronsim_at_every_change(cron: str) -> None:
    """Named hours agree everywhere; rhythms wherever the change is of whole hours at a quarter of an hour."""
    wrong = []
    for change in changes():
        zone, start, end = ZoneInfo(change.zone), change.instant - 26 * HOUR, change.instant + 26 * HOUR
        ours = schedule(cron, change.zone).between(start, end, 1_000)
        if change.regular or cron in NAMED:
            if ours != cronsim(cron, zone, start, end):
                wrong.append(str(change))
        else:
            start, end = change.instant - 4 * HOUR, change.instant + 4 * HOUR
            ours = schedule(cron, change.zone).between(start, end, 1_000)
            if ours != walk(cron, zone, start, end, rhythm=True):
                wrong.append(str(change))
    assert wrong == []


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    some = st.lists(st.integers(low, high), min_size=1, max_size=4, unique=True)
    return some.map(lambda values: ",".join(map(str, sorted(values))))


MINUTES = st.one_of(st.sampled_from(["*", "*/5", "*/20", "7-52/15", "0", "30"]), numbers(0, 59))
NAMED_HOURS = st.one_of(st.sampled_from(["0-4", "22,23,0", "0-22/2"]), numbers(0, 3), numbers(0, 23))
RHYTHMS = st.sampled_from(["*", "*/2", "*/3", "*/6", "*/12", "*/23", "0-23"])
DAYS = st.sampled_from(["*"] * 6 + ["L", "1-7", "25-31", "*/2", "1,L"])
MONTHS = st.sampled_from(["*"] * 6 + ["3,10", "mar-nov", "*/2"])
WEEKDAYS = st.sampled_from(["*"] * 6 + ["sun", "sat,sun", "0#1", "7", "mon-fri", "sun#4,sat#4", "*/2"])
ELSEWHERE = st.tuples(DAYS, MONTHS, WEEKDAYS).map(" ".join)


@settings(deadline=None, max_examples=500)
@given(st.data(), MINUTES, st.one_of(NAMED_HOURS, RHYTHMS), ELSEWHERE, st.integers(0, 8 * 3600))
def test_the_rules_hold_at_any_change(data: Any, minute: str, hour: str, rest: str, later: int) -> None:
    change = data.draw(st.sampled_from(changes()), label="change")
    cron, zone = f"{minute} {hour} {rest}", ZoneInfo(change.zone)
    start, end = change.instant - 4 * HOUR, change.instant + 4 * HOUR
    rhythm = hour.startswith("*") or hour == "0-23"
    expected = walk(cron, zone, start, end, rhythm=rhythm)
    ours = schedule(cron, change.zone)
    assert ours.between(start, end, 10_000) == expected
    asked = start + timedelta(seconds=later)  # from inside a gap's or a fold's surroundings as well
    following = ours.next_after(asked)
    assert following > asked
    assert [following] == [instant for instant in expected if instant > asked][:1] or following > end


@settings(deadline=None, max_examples=300)
@given(st.data(), numbers(0, 59), NAMED_HOURS, ELSEWHERE)
def test_like_cronsim_at_any_change(data: Any, minute: str, hour: str, rest: str) -> None:
    change = data.draw(st.sampled_from(changes()), label="change")
    cron, zone = f"{minute} {hour} {rest}", ZoneInfo(change.zone)
    start, end = change.instant - 3 * DAY, change.instant + 3 * DAY
    assert schedule(cron, change.zone).between(start, end, 10_000) == cronsim(cron, zone, start, end)


@settings(deadline=None, max_examples=250)
@given(
    MINUTES,
    st.one_of(NAMED_HOURS, RHYTHMS),
    ELSEWHERE,
    st.integers(0, 130 * 365 * 24 * 3600),
)
def test_without_changes_like_cronsim_and_croniter(minute: str, hour: str, rest: str, seconds: int) -> None:
    cron, begin = f"{minute} {hour} {rest}", at("1990-01-01T00:00Z") + timedelta(seconds=seconds)
    ours = schedule(cron)
    theirs = CronSim(cron, begin)
    cursor = begin
    for _ in range(8):
        cursor = ours.next_after(cursor)
        assert cursor == next(theirs)
    if "#" not in cron:  # croniter reads a day of the month beside # as neither "and" nor "or"
        judge = croniter(cron, begin, implement_cron_bug=True)
        assert ours.next_after(begin) == judge.get_next(datetime)


# --- where cronsim differs; docs/design/scheduling.md has the reasons ---------------------------------------


def both(cron: str, zone: str, start: str, end: str) -> tuple[list[str], list[str]]:
    place = ZoneInfo(zone)
    ours = schedule(cron, zone).between(at(start), at(end), 1_000)
    theirs = cronsim(cron, place, at(start), at(end))
    return tuple([i.astimezone(place).strftime("%H:%M%z") for i in found] for found in (ours, theirs))  # type: ignore[return-value]


class TestDifferencesToCronsim:
    def test_a_star_for_the_minute_alone_makes_no_rhythm(self) -> None:
        ours, theirs = both("*/30 2 * * *", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T06:00Z")
        assert ours == ["02:00+0200", "02:30+0200"]
        assert theirs == ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]
        ours, theirs = both("*/30 2 * * *", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T06:00Z")
        assert (ours, theirs) == (["03:00+0200"], [])

    def test_all_hours_are_a_rhythm_however_written(self) -> None:
        ours, theirs = both("0 0-23 * * *", "Europe/Berlin", "2026-10-24T23:30Z", "2026-10-25T02:30Z")
        assert ours == ["02:00+0200", "02:00+0100", "03:00+0100"]
        assert theirs == ["02:00+0200", "03:00+0100"]

    def test_a_step_that_leaves_one_hour_names_it(self) -> None:
        ours, theirs = both("0 */24 * * *", "America/Havana", "2026-03-07T12:00Z", "2026-03-08T23:00Z")
        assert (ours, theirs) == (["01:00-0400"], [])

    def test_a_change_of_half_an_hour_loses_nothing(self) -> None:
        ours, theirs = both("15 */2 * * *", "Australia/Lord_Howe", "2026-04-04T13:30Z", "2026-04-04T18:00Z")
        assert (ours, theirs) == (["02:15+1030", "04:15+1030"], ["04:15+1030"])

    def test_a_rhythm_on_some_days_has_no_run_for_a_skipped_midnight_either(self) -> None:
        ours, theirs = both("0 */3 * * sun", "America/Havana", "2026-03-08T03:00Z", "2026-03-08T09:00Z")
        assert (ours, theirs) == (["03:00-0400"], ["01:00-0400", "03:00-0400"])

    def test_what_follows_is_later_also_in_the_second_pass(self) -> None:
        second = at("2026-10-25T01:10Z").astimezone(ZoneInfo("Europe/Berlin"))
        assert next(CronSim("30 2 * * *", second)).astimezone(UTC) == at(
            "2026-10-25T00:30Z"
        )  # before `second`
        assert schedule("30 2 * * *", "Europe/Berlin").next_after(second) == at("2026-10-26T01:30Z")

    def test_a_start_with_a_step_ends_with_saturday(self) -> None:
        sunday = at("2026-11-22T12:00Z")
        assert schedule("0 0 * * 1/3").between(at("2026-11-21T12:00Z"), sunday, 9) == []
        assert next(CronSim("0 0 * * 1/3", at("2026-11-21T12:00Z"))) == at("2026-11-22T00:00Z")


class TestDifferencesToCroniter:
    def test_an_alias_is_what_cron_means_by_it(self) -> None:
        assert len(croniter.expand("@daily", hash_id=b"k")[0]) == 6  # hashed, and with seconds
        for alias, meant in ALIASES.items():
            now = at("2026-05-05T05:05Z")
            assert schedule(alias).next_after(now) == schedule(meant).next_after(now)

    def test_an_nth_weekday_beside_a_day_of_the_month_is_either(self) -> None:
        found = schedule("0 0 20 * fri#2").between(at("2026-11-01T00:00Z"), at("2026-12-01T00:00Z"), 9)
        assert [day.day for day in found] == [13, 20]


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 9 * JAN,Jul MON", "2026-11-23T00:00Z", "2027-01-04T09:00Z"),
        ("0 0 L * *", "2028-02-01T00:00Z", "2028-02-29T00:00Z"),
        ("0 0 28-L 2 *", "2027-02-01T00:00Z", "2027-02-28T00:00Z"),
        ("0 0 15,L * *", "2026-11-16T00:00Z", "2026-11-30T00:00Z"),
        ("0 0 * * L5", "2026-11-01T00:00Z", "2026-11-27T00:00Z"),
        ("0 0 * * L1", "2026-11-01T00:00Z", "2026-11-30T00:00Z"),  # on the month's very last day
        ("0 0 * * 0#1", "2026-11-02T00:00Z", "2026-12-06T00:00Z"),
        ("0 0 * * mon-wed#1", "2026-11-03T12:00Z", "2026-11-04T00:00Z"),
        ("0 0 * * fri-mon", "2026-11-24T00:00Z", "2026-11-27T00:00Z"),
        ("0 0 * * 5-7", "2026-11-28T12:00Z", "2026-11-29T00:00Z"),
        ("0 22-2 * * *", "2026-11-23T02:00Z", "2026-11-23T22:00Z"),
        ("0 0 1 nov-feb *", "2026-02-02T00:00Z", "2026-11-01T00:00Z"),
        ("0 0 13 * 5", "2026-11-10T00:00Z", "2026-11-13T00:00Z"),
        ("0 0 */2 * 1", "2026-11-10T00:00Z", "2026-11-23T00:00Z"),  # a star means "and", as in cron
        ("0 0 29 2 *", "2096-02-29T00:00Z", "2104-02-29T00:00Z"),
        ("@HOURLY", "2026-11-23T12:00Z", "2026-11-23T13:00Z"),
        ("  5   4\t* * * ", "2026-11-23T12:00Z", "2026-11-24T04:05Z"),
    ],
)
def test_what_is_read(cron: str, after: str, expected: str) -> None:
    assert schedule(cron).next_after(at(after)) == at(expected)


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("* * * *", "4 field"),
        ("0 0 * * * *", "6 fields"),
        ("0 0 * * * * 2027", "7 fields"),
        ("@reboot", "aliases are @hourly"),
        ("@daily 5", "aliases are @hourly"),
        ("R * * * *", "R picks another time"),
        ("0 r(1-5) * * *", "R picks another time"),
        ("0 1,R * * *", "R picks another time"),
        ("0 0 30 2 *", "does not exist"),
        ("0 0 31 4,6,9,11 *", "does not exist"),
        ("0 0 30 2 mon", "does not exist"),
        ("0 0 */15 * 1#2", "does not exist"),  # days 1, 16 and 31, and a Monday from the 8th to the 14th
        ("0 0 * 2 1#5", "stay silent for more than 8 years"),
        ("0 0 *\u00a0* *", "outside ASCII"),
        ("0 \u0661 * * *", "outside ASCII"),
        ("60 * * * *", "60 is out of range for the minute field"),
        ("0 24 * * *", "24 is out of range for the hour field"),
        ("0 0 0 * *", "0 is out of range for the day-of-month field"),
        ("0 0 1-32 * *", "32 is out of range"),
        ("0 0 * 13 *", "13 is out of range for the month field"),
        ("0 0 * * 8", "8 is out of range for the day-of-week field"),
        ("H(5-99) * * * *", "99 is out of range"),
        ("*/90 * * * *", "A step of 90 does not fit the minute field"),
        ("0 */0 * * *", "A step of 0"),
        ("5-5 * * * *", "range of one value. Write 5"),
        ("0 0 31-L * *", "range of one value"),
        ("0 0 * * 7-0", "range of one value"),
        ("0 22-4/2 * * *", "wraps around"),
        ("0 0 15W * *", "nearest working day"),
        ("0 0 ? * mon", "Use * instead"),
        ("0 0 * * mon,fri#2", "The day-of-week field"),
        ("0 0 * * 0-6,5#2", "can't mix plain weekdays"),
        ("0 0 * * monday", "The day-of-week field 'monday'"),
        ("0 0 * * 5L", "L5 (the last Friday)"),
        ("0 0 * * fri#6", "The day-of-week field"),
        ("0 0 L-3 * *", "The day-of-month field 'l-3'"),
        ("H,5 * * * *", "The minute field 'h,5'"),
        ("-5 * * * *", "The minute field '-5'"),
        ("5, * * * *", "The minute field '5,'"),
        ("1 " * 300, "longer than 200"),
        ("0 0 1 1 *; rm", "6 fields"),
    ],
)
def test_what_is_refused_says_why(cron: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schedule(cron)
    assert caught.value.code == "CRON_INVALID"
    assert reason in caught.value.remedy
    assert len(str(caught.value)) < 700


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.text("0123456789*/,-#LHRWlhr()@ ?", max_size=6), max_size=7).map(" ".join),
    )
)
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        found = schedule(text)
    except ConfigurationError as error:
        assert error.code == "CRON_INVALID"  # noqa: PT017 - both ends are right
    else:
        assert found.next_after(at("2026-11-23T00:00Z")) > at("2026-11-23T00:00Z")
        assert found.describe()


@pytest.mark.parametrize("month", range(1, 13))
def test_a_fifth_weekday_is_refused_exactly_where_it_can_take_longer_than_eight_years(month: int) -> None:
    """The check at parse time has no clock, so it must hold from any start."""
    for weekday in range(7):
        years = [year for year in range(2000, 2900) if has_fifth(year, month, weekday)]
        longest = max(later - earlier for earlier, later in pairwise(years))
        try:
            schedule(f"0 0 * {month} {weekday}#5")
        except ConfigurationError:
            assert longest > 8
        else:
            assert longest <= 8


def has_fifth(year: int, month: int, weekday: int) -> bool:
    first, length = monthrange(year, month)
    return 1 + (weekday - 1 - first) % 7 + 28 <= length


@pytest.mark.parametrize(
    "name",
    ["", "Berlin", "Europe", "europe/berlin", "../UTC", "/etc/localtime", "localtime", "Factory", "UTC\0"],
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schedule("@daily", name)
    assert caught.value.code == "TIMEZONE_INVALID"
    assert ("Did you mean Europe/Berlin?" in str(caught.value)) == (name == "europe/berlin")


# --- H ----------------------------------------------------------------------------------------------------


def test_a_hashed_time_never_moves() -> None:
    """These are promises to bindings that exist: another hash would move them all."""
    day = at("2026-11-22T23:59Z")
    times = [schedule("H H * * *", key=f"binding:{n}").next_after(day).strftime("%H:%M") for n in range(1, 6)]
    assert times == ["09:06", "20:16", "23:22", "22:45", "13:27"]


@given(st.text(max_size=30))
def test_a_hashed_time_stays_in_its_range(key: str) -> None:
    found = schedule("H(10-19) H(2-4) * * *", key=key).next_after(at("2026-11-22T23:59Z"))
    assert found.hour in range(2, 5)
    assert found.minute in range(10, 20)
    assert found == schedule("H(10-19) H(2-4) * * *", key=key).next_after(found - MINUTE)


def test_hashed_times_spread() -> None:
    minutes = [
        schedule("H * * * *", key=f"binding:{n}").next_after(at("2026-11-23T00:00Z")).minute
        for n in range(6000)
    ]
    counts = [minutes.count(minute) for minute in range(60)]
    assert max(counts) < 2 * 100


def test_hashed_minutes_and_hours_make_240_times_of_the_day() -> None:
    day = at("2026-11-22T23:59Z")
    found = {schedule("H H * * *", key=f"binding:{n}").next_after(day) for n in range(4000)}
    assert len(found) == 240


def test_a_hashed_step_is_a_rhythm() -> None:
    found = schedule("0 H/2 * * *", "Europe/Berlin", "binding:1").between(
        at("2026-10-24T20:00Z"), at("2026-10-25T06:00Z"), 99
    )
    assert {gap for pair in pairwise(found) for gap in [pair[1] - pair[0]]} <= {HOUR, 2 * HOUR, 3 * HOUR}


# --- the value and its answers ------------------------------------------------------------------------------


def test_a_schedule_is_a_value() -> None:
    one, two = schedule("0  5 * * *"), schedule("0 5 * * *")
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == two  # noqa: S301 - our own bytes
    with pytest.raises(AttributeError):
        one.cron = "0 6 * * *"  # type: ignore[misc]


def test_answers_are_in_utc_and_strictly_later() -> None:
    found = schedule("0 5 * * *", "Asia/Tokyo")
    asked = datetime(2026, 11, 23, 5, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert found.next_after(asked) == at("2026-11-23T20:00Z")
    assert found.next_after(asked - timedelta(microseconds=1)) == asked
    assert found.next_after(asked).tzinfo is UTC


def test_a_naive_instant_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        schedule("@daily").next_after(datetime(2026, 1, 1))  # noqa: DTZ001


def test_between_counts_the_end_in_and_stops_at_the_limit() -> None:
    start, end = at("2026-11-23T00:00Z"), at("2026-11-23T03:00Z")
    assert [i.hour for i in schedule("@hourly").between(start, end, 99)] == [1, 2, 3]
    assert [i.hour for i in schedule("@hourly").between(start, end, 2)] == [1, 2]
    assert schedule("@hourly").between(end, start, 99) == []
    assert schedule("@hourly").between(start, end, 0) == []


@settings(deadline=None, max_examples=150)
@given(
    st.data(),
    MINUTES,
    st.one_of(NAMED_HOURS, RHYTHMS),
    ELSEWHERE,
    st.integers(0, 10_000),
    st.integers(-4000, 4000),
)
def test_the_latest_is_the_last_of_all(
    data: Any, minute: str, hour: str, rest: str, ago: int, shift: int
) -> None:
    change = data.draw(st.sampled_from(changes()), label="change")
    found = schedule(f"{minute} {hour} {rest}", change.zone)
    until = change.instant + shift * timedelta(seconds=7)
    since = until - ago * MINUTE
    every = found.between(since - timedelta(microseconds=1), until, 100_000)
    assert found.latest(since, until) == (every[-1] if every else None)


@pytest.mark.parametrize("cron", ["* * * * *", "0 0 29 2 *", "@daily", "*/7 3 * * L5", "0 0 1 1 *"])
def test_finding_the_latest_is_little_work_after_any_downtime(
    cron: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    real = Schedule.next_after

    def counting(self: Schedule, instant: datetime) -> datetime:
        nonlocal asked
        asked += 1
        return real(self, instant)

    monkeypatch.setattr(Schedule, "next_after", counting)
    assert schedule(cron).latest(at("2010-01-01T00:00Z"), at("2026-11-23T12:34Z")) is not None
    assert asked < 100


def test_one_text_is_parsed_once_for_all_its_bindings() -> None:
    cron_parser._compile.cache_clear()
    for n in range(500):
        schedule("17 4 * * thu", key=f"binding:{n}").next_after(at("2026-11-23T00:00Z"))
    assert cron_parser._compile.cache_info().misses == 1
    for n in range(500):
        schedule("H 4 * * thu", key=f"binding:{n}")
    assert cron_parser._compile.cache_info().misses == 501


def test_a_zone_is_read_once() -> None:
    names = sorted(available_timezones() - {"Factory", "localtime", "posixrules"})[:40]
    cron_module.zone_of.cache_clear()
    for name in names * 3:
        schedule("@daily", name).next_after(at("2026-11-23T00:00Z"))
    assert cron_module.zone_of.cache_info().misses == 40


@pytest.mark.parametrize(
    ("cron", "sentence"),
    [
        ("* * * * *", "every minute (UTC)"),
        ("*/5 * * * *", "every 5 minutes (UTC)"),
        ("0 * * * *", "every hour at :00 (UTC)"),
        ("10,40 * * * *", "every hour at :10 and :40 (UTC)"),
        ("30 6 * * *", "at 06:30, every day (UTC)"),
        ("30 6 * * mon-fri", "at 06:30, on Monday to Friday (UTC)"),
        ("0 9,18 * jan,mar *", "at 09:00 and 18:00, in January and March (UTC)"),
        ("*/15 9-17 * * *", "36 times a day, from 09:00 to 17:45, every day (UTC)"),
        ("0 0 L 6-8 *", "at 00:00, on the last day of the month, in June to August (UTC)"),
        ("0 0 1,L * *", "at 00:00, on day 1 and the last (UTC)"),
        ("0 5 * * fri#2,L1", "at 05:00, on the second Friday and last Monday of the month (UTC)"),
        ("0 0 13 * 5", "at 00:00, on day 13 or on Friday (UTC)"),
        ("0 0 1-7/2 * *", "at 00:00, on day 1, 3, 5 and 7 (UTC)"),
    ],
)
def test_a_schedule_in_words(cron: str, sentence: str) -> None:
    assert schedule(cron).describe() == sentence
