"""How long a push may take: from the binding's own batches of about that size, or from what others tell; a range."""

from __future__ import annotations

import pytest

from models.direction import Direction
from models.types import WriteMode
from worker.inspection.estimate import Estimate, estimate, jobs

FULL = 25_000


@pytest.mark.parametrize(
    ("requests", "paces", "expected"),
    [
        ([], [(FULL, 3.0)], Estimate(0, (0, 0), 0)),
        ([7], [], Estimate(1, (0, 20), 0)),
        ([FULL] * 4 + [12], [], Estimate(5, (1, 60), 0)),  # three rounds of two
        ([FULL] * 4, [(FULL, 3.2), (20_000, 8.1), (12, 0.5)], Estimate(4, (6, 17), 2)),
        ([12], [(FULL, 3.2), (12, 0.5), (24, 1.5), (25, 9.0)], Estimate(1, (0, 2), 2)),
    ],
)
def test_jobs(requests: list[int], paces: list[tuple[int, float]], expected: Estimate) -> None:
    assert estimate(requests, paces, WriteMode.ASYNC) == expected


def test_synchronous_rows_go_fifty_at_a_time_one_after_the_other() -> None:
    assert estimate([50, 50, 20, 10], [], WriteMode.SYNC) == Estimate(4, None, 0)
    assert estimate([50, 50, 20, 10], [(50, 0.2), (50, 0.6)], WriteMode.SYNC) == Estimate(4, (0, 3), 2)


IN, OUT = Direction.ENTER, Direction.EXIT


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        ([], []),
        ([(IN, 5), (OUT, 7)], [12]),
        ([(IN, FULL), (IN, 5), (OUT, FULL), (OUT, 7)], [FULL, 12, FULL]),
        ([(IN, 20_000), (OUT, 5_001)], [20_000, 5_001]),
        ([(IN, 5), (IN, 7)], [5, 7]),
    ],
)
def test_an_entering_and_an_exiting_batch_that_fit_one_request_are_one_job(
    planned: list[tuple[Direction, int]], expected: list[int]
) -> None:
    assert jobs(planned, FULL) == expected
