"""How often a download job is asked after: soon enough after its end, and not more often than that needs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.stages.snapshot import MAX_POLL_SECONDS, MIN_POLL_SECONDS, pause

SECONDS = st.floats(0, 7_200, allow_nan=False)


def polls(takes: float, usual: float) -> list[float]:
    """The ages at which a job of that length is asked after, the first at once; the last poll finds it ended."""
    asked = [0.0]
    while asked[-1] < takes:
        asked.append(asked[-1] + pause(asked[-1], usual))
    return asked


@given(SECONDS, SECONDS)
def test_an_end_is_seen_soon(takes: float, usual: float) -> None:
    asked = polls(takes, usual)
    late = asked[-1] - takes
    assert late <= MAX_POLL_SECONDS
    if takes >= 0.75 * usual:
        assert late <= max(takes / 8, MIN_POLL_SECONDS)


@given(SECONDS)
def test_what_is_known_of_a_job_saves_polls(takes: float) -> None:
    assert len(polls(takes, takes)) <= len(polls(takes, 0))


def test_a_job_of_half_a_minute() -> None:
    assert [round(age, 1) for age in polls(30, 30)] == [0, 10, 20, 22.5, 25.3, 28.5, 32.0]
    assert len(polls(30, 0)) == 32
