"""When a job at the vendor is looked at: soon after its end, with few looks, whatever was learned before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.stages.pace import FIRST_POLL_SECONDS, POLL_MAX_SECONDS, POLL_MIN_SECONDS, Pace

SECONDS = st.floats(min_value=0.01, max_value=600)
LEARNED = st.none() | SECONDS


def found(pace: Pace, takes: float) -> tuple[float, int]:
    """When a job that takes so long is found ended, and the looks before."""
    at, looks = pace.first(), 0
    while at < takes:
        at += pace.again(at)
        looks += 1
    return at, looks


@given(LEARNED, SECONDS)
def test_an_end_is_seen_within_a_quarter_of_the_job_s_length(learned: float | None, takes: float) -> None:
    pace = Pace(learned)
    at, _ = found(pace, takes)
    planned = min(POLL_MAX_SECONDS, learned or 0.0)  # a job that others give no reason to look at any sooner
    assert at <= max(pace.first(), takes + max(POLL_MIN_SECONDS, takes / 4, planned)) + 1e-9
    if pace.first() <= takes and (learned or 0.0) <= takes:
        assert at <= takes + max(POLL_MIN_SECONDS, takes / 4) + 1e-9


@given(SECONDS, st.floats(min_value=1.0, max_value=1.2))
def test_a_job_that_takes_about_as_long_as_others_is_seen_much_sooner(learned: float, more: float) -> None:
    takes = learned * more
    at, _ = found(Pace(learned), takes)
    assert at - takes <= max(POLL_MIN_SECONDS, learned / 32, (takes - learned) / 2) + 1e-9


@given(LEARNED, SECONDS)
def test_few_looks_find_it(learned: float | None, takes: float) -> None:
    _, looks = found(Pace(learned), takes)
    assert looks <= 28 + takes / POLL_MAX_SECONDS


@given(st.lists(SECONDS, max_size=20))
def test_slow_jobs_teach_nothing_that_quick_ones_do_not_unteach(slow: list[float]) -> None:
    pace = Pace()
    for takes in [*slow, *[2.0] * 20]:
        at, looks = found(pace, takes)
        pace = pace.learned(at, looks, late=0.0)
    assert 2.0 <= found(pace, 2.0)[0] <= 2.5


@given(SECONDS)
def test_jobs_of_one_length_are_found_soon_with_one_look_or_two(takes: float) -> None:
    pace, lateness, asked = Pace(), 0.0, 0
    for number in range(40):
        at, looks = found(pace, takes)
        pace = pace.learned(at, looks, late=0.0)
        if number >= 20:
            lateness, asked = lateness + at - takes, asked + 1 + looks
    assert lateness / 20 <= max(POLL_MIN_SECONDS, takes / 25)
    assert asked / 20 <= 3 + takes / POLL_MAX_SECONDS


@given(st.floats(min_value=0.5, max_value=15), st.floats(min_value=0, max_value=0.24))
def test_workers_that_are_always_a_little_late_teach_no_longer_jobs(takes: float, share: float) -> None:
    pace = Pace()
    for _ in range(40):
        at, looks = found(pace, takes)
        late = share * at
        pace = pace.learned(at + late, looks, late=late)
    assert pace.first() <= takes * 1.05


def test_time_that_nobody_looked_is_no_job_s_length() -> None:
    pace = Pace(1.6)
    assert pace.learned(35.0, 0, late=33.4) == pace
    assert pace.learned(35.0, 3, late=30.0) == pace
    assert Pace().first() == FIRST_POLL_SECONDS
