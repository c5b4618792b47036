"""Many occurrences at once are those that the next one gives again and again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cron import Schedule

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"),
    *("America/Sao_Paulo", "Africa/Casablanca", "Asia/Beirut", "America/Scoresbysund", "Pacific/Kiritimati"),
)
CRONS = (
    *("0 6 * * *", "H H * * *", "*/7 * * * *", "30 2 * * *", "0 0 * * *", "59 23 * * *", "0 */2 * * *"),
    *("15 1,2,3 * * 0", "0 12 L * *", "5 4 29 2 *", "0 3 * * 1#2", "@hourly", "30 0,1,23 1,15 * 5"),
)
BEGIN = datetime(
    2010, 1, 1, tzinfo=UTC
)  # Samoa skips a day in 2011, and some zones turn their clocks at midnight


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(CRONS),
    st.sampled_from(ZONES),
    st.integers(0, 20 * 366 * 24 * 60),
    st.integers(0, 40 * 24 * 60),
)
def test_occurrences_are_those_of_next_after(cron: str, zone: str, minute: int, length: int) -> None:
    schedule = Schedule.parse(cron, zone, "a binding")
    after = BEGIN + timedelta(minutes=minute, seconds=minute % 60)
    until = after + timedelta(minutes=length)
    found = list(islice(schedule.occurrences(after, until), 2_000))
    assert found == schedule.between(after, until, 2_000)
