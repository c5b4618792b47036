"""The decisions about an occurrence, as tables where they are few and as properties where they are arithmetic."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ConfigurationError
from models.runs.missed import COUNTED, counted
from models.setup.blackouts import Blackout, blackout_until, parse_blackouts
from scheduler import cron
from scheduler.cron import Schedule
from scheduler.policy import (
    GRACE,
    Catchup,
    Decision,
    Due,
    Overlap,
    Period,
    due_occurrences,
    jitter,
    overlap,
)
from worker.vendors.backoff import retry_delay

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


HOURLY = Schedule.parse("0 * * * *", "UTC", "binding:1")
EVERY_MINUTE = Schedule.parse("* * * * *", "UTC", "binding:1")
NOON = at("2026-11-23T12:00Z")


# --- what is due --------------------------------------------------------------------------------------------


class TestDue:
    @pytest.mark.parametrize("catchup", ["latest", "none"])
    def test_an_occurrence_on_time_runs(self, catchup: Catchup) -> None:
        found = due_occurrences(HOURLY, NOON, NOON + 5 * SECOND, catchup, timedelta())
        assert found == Due(NOON + HOUR, NOON + HOUR, NOON)

    def test_nothing_is_due_before_its_time(self) -> None:
        assert due_occurrences(HOURLY, NOON, NOON - SECOND, "latest", DAY) == Due(NOON, NOON)

    def test_latest_runs_the_newest_of_the_missed(self) -> None:
        found = due_occurrences(HOURLY, NOON - 5 * HOUR, NOON + 20 * MINUTE, "latest", HOUR)
        assert found == Due(NOON + HOUR, NOON + HOUR, NOON, False, 5, NOON - 5 * HOUR)

    def test_latest_leaves_what_is_older_than_the_window(self) -> None:
        found = due_occurrences(HOURLY, NOON - 5 * HOUR, NOON + 20 * MINUTE, "latest", 19 * MINUTE)
        assert found == Due(NOON + HOUR, NOON + HOUR, NOON, True, 6, NOON - 5 * HOUR)

    def test_a_window_of_nothing_still_runs_what_is_on_time(self) -> None:
        found = due_occurrences(HOURLY, NOON, NOON + GRACE, "latest", timedelta())
        assert (found.occurrence, found.late, found.missed) == (NOON, False, 0)

    def test_none_leaves_all_that_was_missed(self) -> None:
        found = due_occurrences(HOURLY, NOON - HOUR, NOON + GRACE + SECOND, "none", DAY)
        assert found == Due(NOON + HOUR, NOON + HOUR, NOON, True, 2, NOON - HOUR)

    def test_none_still_runs_an_occurrence_of_this_moment_after_a_downtime(self) -> None:
        found = due_occurrences(HOURLY, NOON - HOUR, NOON + GRACE, "none", DAY)
        assert found == Due(NOON + HOUR, NOON + HOUR, NOON, False, 1, NOON - HOUR)

    def test_jitter_moves_the_time_and_never_the_name(self) -> None:
        delay = 10 * MINUTE  # far longer than the grace: lateness counts from the moved time
        assert due_occurrences(HOURLY, NOON, NOON + delay - SECOND, "none", DAY, delay=delay) == Due(
            NOON, NOON + delay
        )
        assert due_occurrences(HOURLY, NOON, NOON + delay, "none", DAY, delay=delay) == Due(
            NOON + HOUR, NOON + HOUR + delay, NOON
        )

    def test_a_year_of_minutes_is_little_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = 0
        real = cron._next

        def counting(*given: Any) -> datetime:
            nonlocal asked
            asked += 1
            return real(*given)

        monkeypatch.setattr(cron, "_next", counting)
        cron._count.cache_clear()
        found = due_occurrences(EVERY_MINUTE, NOON - 365 * DAY, NOON, "latest", DAY)
        assert (found.occurrence, found.late, found.missed) == (NOON, False, COUNTED + 1)
        assert COUNTED < asked < COUNTED + 100
        asked = 0
        due_occurrences(EVERY_MINUTE, NOON - 365 * DAY, NOON, "latest", DAY)
        assert asked < 100, "they are counted once for all bindings of the same minutes"

    def test_the_count_of_the_missed_ends_somewhere(self) -> None:
        for hours, said in ((COUNTED - 1, "1,000"), (COUNTED, "more than 1,000"), (9_999, "more than 1,000")):
            found = due_occurrences(HOURLY, NOON - hours * HOUR, NOON + 30 * MINUTE, "none", DAY)
            assert counted(found.missed) == said
            assert found.missed_since == NOON - hours * HOUR

    def test_a_changed_schedule_has_nothing_missed(self) -> None:
        daily = Schedule.parse("0 6 * * *", "UTC", "binding:1")
        found = due_occurrences(daily, NOON - HOUR, NOON, "latest", DAY)
        assert found == Due(at("2026-11-24T06:00Z"), at("2026-11-24T06:00Z"))

    def test_a_clock_that_went_back_changes_nothing(self) -> None:
        assert due_occurrences(HOURLY, NOON, NOON - 3 * DAY, "latest", DAY) == Due(NOON, NOON)


class TestPeriod:
    def test_both_ends_count_in(self) -> None:
        period = Period(NOON, NOON + HOUR)
        assert period.next_after(HOURLY, NOON - DAY) == NOON
        assert period.next_after(HOURLY, NOON) == NOON + HOUR
        assert period.next_after(HOURLY, NOON + HOUR) is None
        assert Period(end=NOON - SECOND).next_after(HOURLY, NOON - 30 * MINUTE) is None

    def test_after_the_end_the_last_one_is_caught_up_and_no_more_follow(self) -> None:
        found = due_occurrences(HOURLY, NOON - HOUR, NOON + 3 * HOUR, "latest", DAY, period=Period(end=NOON))
        assert found == Due(None, None, NOON, False, 1, NOON - HOUR)

    def test_before_the_start_nothing_was_missed(self) -> None:
        period = Period(start=NOON + HOUR)
        found = due_occurrences(HOURLY, NOON - HOUR, NOON, "latest", DAY, period=period)
        assert found == Due(NOON + HOUR, NOON + HOUR)

    def test_an_end_before_all_that_is_stored(self) -> None:
        found = due_occurrences(HOURLY, NOON, NOON + HOUR, "latest", DAY, period=Period(end=NOON - DAY))
        assert found == Due(None, None)


CRONS = ["* * * * *", "*/7 * * * *", "0 */2 * * *", "30 2 * * *", "15 1,2,3 * * sun", "0 0 L * *"]
ENDS = st.one_of(st.none(), st.integers(-20_000, 20_000))


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(CRONS),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe"]),
    st.integers(0, 366 * 24 * 60),
    st.integers(-60, 5_000),
    st.sampled_from(["latest", "none"]),
    st.integers(0, 7_200),
    st.integers(0, 900),
    st.tuples(ENDS, ENDS),
)
def test_due_is_what_listing_everything_would_say(
    cron: str, zone: str, minute: int, late: int, catchup: Catchup, window: int, delay: int, ends: Any
) -> None:
    schedule = Schedule.parse(cron, zone, "binding:1")
    stored = schedule.next_after(at("2026-01-01T00:00Z") + minute * MINUTE)
    pause = timedelta(seconds=delay)
    now = stored + pause + late * MINUTE
    start, end = (None if n is None else now + n * MINUTE for n in ends)
    found = due_occurrences(
        schedule, stored, now, catchup, window * SECOND, delay=pause, period=Period(start, end)
    )
    due = [
        occurrence
        for occurrence in schedule.between(stored - SECOND, now - pause, 100_000)
        if (start is None or start <= occurrence) and (end is None or occurrence <= end)
    ]
    allowed = GRACE if catchup == "none" else max(GRACE, window * SECOND)
    late = bool(due) and now - pause - due[-1] > allowed
    missed = due if late else due[:-1]
    assert (found.occurrence, found.late) == (due[-1] if due else None, late)
    assert found.missed == min(len(missed), COUNTED + 1)
    assert found.missed_since == (missed[0] if missed else None)
    if found.next_due_at is None:
        assert end is not None
        assert late >= 0
    else:
        assert found.next_due_at > now
        assert found.next_occurrence == found.next_due_at - pause


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(CRONS),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Havana"]),
    st.integers(0, 366 * 24 * 60),
    st.lists(st.integers(1, 3_000), min_size=1, max_size=12),
    st.sampled_from(["latest", "none"]),
    st.integers(0, 7_200),
    st.integers(0, 900),
)
def test_over_any_downtimes_each_due_occurrence_is_run_or_counted_once(
    cron: str, zone: str, minute: int, gaps: list[int], catchup: Catchup, window: int, delay: int
) -> None:
    schedule, pause = Schedule.parse(cron, zone, "binding:1"), timedelta(seconds=delay)
    first = stored = schedule.next_after(at("2026-01-01T00:00Z") + minute * MINUTE)
    now, done, more = first + pause, 0, False
    for gap in gaps:
        now += gap * MINUTE
        found = due_occurrences(schedule, stored, now, catchup, window * SECOND, delay=pause)
        done += found.missed + (found.occurrence is not None and not found.late)
        more |= found.missed > COUNTED
        assert found.next_occurrence
        stored = found.next_occurrence
    due = len(schedule.between(first - SECOND, now - pause, 100_000))
    assert done <= due if more else done == due


# --- overlap, jitter, retries -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "unfinished", "queued", "decision"),
    [
        ("skip", False, False, "run"),
        ("skip", True, False, "skip"),
        ("skip", True, True, "skip"),
        ("skip", False, True, "skip"),
        ("queue", False, False, "run"),
        ("queue", True, False, "queue"),
        ("queue", True, True, "skip"),
        ("queue", False, True, "skip"),
    ],
)
def test_overlap(policy: Overlap, unfinished: bool, queued: bool, decision: Decision) -> None:
    assert overlap(policy, unfinished, queued) == decision


@given(st.text(max_size=50), st.integers(-10, 100_000))
def test_jitter_stays_within_and_stays_the_same(key: str, most: int) -> None:
    found = jitter(key, most)
    assert timedelta() <= found <= timedelta(seconds=max(0, most))
    assert found == jitter(key, most)
    assert not found.microseconds


def test_jitter_never_moves_between_versions() -> None:
    assert [jitter(f"binding:{n}", 600).seconds for n in range(1, 5)] == [428, 187, 165, 186]


def test_jitter_spreads() -> None:
    drawn = [jitter(f"binding:{n}", 59).seconds for n in range(6_000)]
    assert set(drawn) == set(range(60))
    assert max(map(drawn.count, range(60))) < 2 * 100


@given(
    st.one_of(st.integers(-5, 100), st.integers(10**3, 10**18)),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(),
)
def test_a_retry_delay_is_between_half_and_all_of_its_step(
    attempt: int, base: float, maximum: float, seed: int
) -> None:
    found = retry_delay(attempt, base, maximum, random.Random(seed))
    step = min(maximum, base * 2.0 ** min(max(attempt, 1) - 1, 60))
    assert math.isfinite(found)
    assert found <= maximum
    assert step / 2 <= found * (1 + 1e-12)
    assert found <= step * (1 + 1e-12) or attempt > 60
    assert found == retry_delay(attempt, base, maximum, random.Random(seed))


def test_retry_delays_double_up_to_the_maximum() -> None:
    class Highest(random.Random):
        def random(self) -> float:
            return 1.0

    assert [retry_delay(n, 2, 30, Highest()) for n in range(1, 7)] == [2, 4, 8, 16, 30, 30]


# --- blackouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("22:00-06:00", Blackout(1320, 360)),
        (" 08:30-09:00 ", Blackout(510, 540)),
        ("18:00-24:00", Blackout(1080, 1440)),
        ("00:00-00:01", Blackout(0, 1)),
        ("22:00-00:00", Blackout(1320, 0)),
    ],
)
def test_a_blackout_is_read(text: str, window: Blackout) -> None:
    assert Blackout.parse(text) == window
    assert str(window) == text.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "hh:mm-hh:mm"),
        ("22-06", "hh:mm-hh:mm"),
        ("8:00-9:00", "hh:mm-hh:mm"),
        ("25:00-26:00", "hh:mm-hh:mm"),
        ("22:60-23:00", "hh:mm-hh:mm"),
        ("24:00-06:00", "hh:mm-hh:mm"),
        ("22:00-24:01", "24:00"),
        ("06:00-06:00", "pause it"),
        ("00:00-24:00", "pause it"),
        ("\u0662\u0662:00-06:00", "hh:mm-hh:mm"),
    ],
)
def test_a_blackout_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Blackout.parse(text)
    assert caught.value.code == "SETTING_INVALID"
    assert reason in caught.value.remedy


def test_blackouts_must_leave_something() -> None:
    assert parse_blackouts([]) == ()
    assert len(parse_blackouts(["22:00-06:00", "06:00-21:59"])) == 2
    assert len(parse_blackouts(["01:00-24:00"])) == 1
    for texts in (
        ["22:00-06:00", "06:00-22:00"],
        ["00:00-12:00", "11:00-24:00"],
        ["12:00-11:00", "10:00-13:00"],
    ):
        with pytest.raises(ConfigurationError, match="no minute of the day"):
            parse_blackouts(texts)


def until(windows: list[str], zone: str, now: str) -> str | None:
    found = blackout_until(parse_blackouts(windows), zone, at(now))
    return found and found.strftime("%d %H:%MZ")


class TestBlackoutUntil:
    def test_the_end_is_free_again_and_the_start_is_not(self) -> None:
        assert until(["08:00-09:00"], "UTC", "2026-11-23T07:59:59Z") is None
        assert until(["08:00-09:00"], "UTC", "2026-11-23T08:00:00Z") == "23 09:00Z"
        assert until(["08:00-09:00"], "UTC", "2026-11-23T08:59:59Z") == "23 09:00Z"
        assert until(["08:00-09:00"], "UTC", "2026-11-23T09:00:00Z") is None
        assert until([], "UTC", "2026-11-23T09:00:00Z") is None

    def test_over_midnight_in_the_zone_of_the_binding(self) -> None:
        assert until(["22:00-06:00"], "Asia/Tokyo", "2026-11-23T14:00Z") == "23 21:00Z"
        assert until(["22:00-06:00"], "Asia/Tokyo", "2026-11-23T20:59Z") == "23 21:00Z"
        assert until(["22:00-06:00"], "Asia/Tokyo", "2026-11-23T21:00Z") is None

    def test_windows_that_touch_or_overlap_are_one(self) -> None:
        assert until(["22:00-24:00", "00:00-02:00", "01:00-05:00"], "UTC", "2026-11-23T23:00Z") == "24 05:00Z"

    def test_both_passes_of_a_repeated_hour_are_silent(self) -> None:
        # Berlin: 02:00 to 03:00 lasts two hours, and so does what ends or begins within it.
        assert until(["02:00-02:30"], "Europe/Berlin", "2026-10-25T00:00Z") == "25 01:30Z"
        assert until(["02:00-02:30"], "Europe/Berlin", "2026-10-25T01:29Z") == "25 01:30Z"
        assert until(["02:30-04:00"], "Europe/Berlin", "2026-10-25T00:30Z") == "25 03:00Z"

    def test_a_skipped_window_is_none_and_a_skipped_end_is_the_change(self) -> None:
        assert until(["02:00-02:30"], "Europe/Berlin", "2026-03-29T01:00Z") is None
        assert until(["01:00-02:30"], "Europe/Berlin", "2026-03-29T00:30Z") == "29 01:00Z"
        assert until(["02:30-04:00"], "Europe/Berlin", "2026-03-29T01:00Z") == "29 02:00Z"


HHMM = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")
WINDOWS = st.lists(st.tuples(HHMM, HHMM).filter(lambda w: w[0] != w[1]).map("-".join), max_size=4)
CHANGES = [
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("America/Havana", "2026-03-08T05:00Z"),
    ("America/Santiago", "2026-04-05T03:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("UTC", "2026-11-23T12:00Z"),
]


@settings(deadline=None, max_examples=400)
@given(WINDOWS, st.sampled_from(CHANGES), st.integers(-40 * 60, 40 * 60))
def test_silence_holds_whenever_the_wall_clock_says_so(texts: list[str], change: Any, shift: int) -> None:
    zone, turn = change
    try:
        windows = parse_blackouts(texts)
    except ConfigurationError:
        return
    now = at(turn) + shift * MINUTE
    wall = now.astimezone(ZoneInfo(zone))
    minute = wall.hour * 60 + wall.minute
    silent = any(
        w.start <= minute < w.end if w.start < w.end else minute >= w.start or minute < w.end for w in windows
    )
    found = blackout_until(windows, zone, now)
    assert found or not silent
    if found:
        assert now < found < now + 2 * DAY
        assert blackout_until(windows, zone, found) is None  # it is over when it is said to be
        assert blackout_until(windows, zone, found - timedelta(microseconds=1)) == found
