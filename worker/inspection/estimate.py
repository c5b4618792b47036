"""How long a push would take: a range from what was measured or told, for nobody promises a pace. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from models.direction import Direction
from models.runs.slots import JOBS_IN_FLIGHT
from models.types import WriteMode

# Jobs that peers and Salesforce's own samples tell of: 0.5 to 2 s for a row, 1.9 to 20 s for thousands. One sample
# waited for 7 min 28 s in the queue (2017).
TOLD = (0.5, 20.0)


@dataclass(frozen=True)
class Estimate:
    """Upserts to make, and the seconds that they take; none where there is nothing to go by.

    `measured` are the binding's own batches that it rests on: none means that it rests on what others tell.
    """

    upserts: int
    seconds: tuple[int, int] | None
    measured: int


def jobs(planned: Sequence[tuple[Direction, int]], rows_together: int) -> list[int]:
    """The rows of each job, of batches as (direction, rows): see `models.runs.batches.take_slot`."""
    left, found = list(planned), []
    while left:
        direction, n = left.pop(0)
        other = next((one for one in left if one[0] != direction and n + one[1] <= rows_together), None)
        if other is not None:
            left.remove(other)
        found.append(n + (other[1] if other else 0))
    return found


def estimate(requests: Sequence[int], paces: Sequence[tuple[int, float]], mode: str) -> Estimate:
    """`requests` are the rows of each batch to come, `paces` the (rows, seconds) of the last acknowledged ones.

    Batches of about that size count: half to twice the largest one to come. Asynchronous ones go two at a time.
    """
    if not requests:
        return Estimate(0, (0, 0), 0)
    largest = max(requests)
    alike = [seconds for rows, seconds in paces if largest <= 2 * rows and rows <= 2 * largest]
    rounds = len(requests) if mode == WriteMode.SYNC else ceil(len(requests) / JOBS_IN_FLIGHT)
    if not alike and mode == WriteMode.SYNC:
        return Estimate(len(requests), None, 0)
    low, high = (min(alike), max(alike)) if alike else TOLD
    return Estimate(len(requests), (int(low * rounds), ceil(high * rounds)), len(alike))
