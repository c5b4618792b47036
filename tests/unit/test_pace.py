"""When a job at the vendor is looked at: soon after its end, with few looks, whatever was learned before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.stages.push import POLL_MAX_SECONDS, Pace

SECONDS = st.floats(min_value=0.01, max_value=600)


def found(pace: Pace, takes: float) -> tuple[float, int]:
    """When a job that takes so long is found ended, and the looks before."""
    at, looks = pace.first(), 0
    while at < takes:
        at += pace.again(at)
        looks += 1
    return at, looks


@given(SECONDS, SECONDS)
def test_an_end_is_seen_before_twice_the_time_or_a_quarter_of_what_jobs_took(
    learned: float, takes: float
) -> None:
    pace = Pace(learned)
    at, _ = found(pace, takes)
    assert at <= max(pace.first(), takes + min(POLL_MAX_SECONDS, max(takes, learned / 4, 0.03))) + 1e-9


@given(SECONDS, SECONDS)
def test_few_looks_find_it(learned: float, takes: float) -> None:
    _, looks = found(Pace(learned), takes)
    assert looks <= 10 + takes / POLL_MAX_SECONDS


@given(st.lists(SECONDS, min_size=1, max_size=20))
def test_slow_jobs_teach_nothing_that_quick_ones_do_not_unteach(slow: list[float]) -> None:
    pace = Pace()
    for takes in [*slow, *[2.0] * 20]:
        at, looks = found(pace, takes)
        pace.ended(at, looks)
    assert found(pace, 2.0)[0] <= 4.5
