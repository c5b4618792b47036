"""Runs that ended since this process first saw the database, each counted once.

A run is found by its id, never by `finished_at`: clocks of hosts differ, and a commit becomes visible later than the
time in it. Every look takes two sets, in this order: the runs made since the last look, and those that are open now.
What was open or new and is not open any more has ended, and a run that has ended never changes again. So none is
counted twice, because no look after that finds it among the open or the new ones; and none is missed, however
fast it began and ended, because its id is new once.

One thing could hide a run: PostgreSQL gives out an id before its row is committed, so a higher id may be seen first.
The ids that were passed over are asked for again for LATE seconds; no transaction of ours lives so long.

The counts begin at 0 with the process, as Prometheus expects of a counter.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from sqlalchemy.orm import Session

from models.observability import metric_queries
from models.observability.metric_queries import Ended

LATE_SECONDS = 600.0
LOOK_BACK = 10_000  # so far behind the newest id another may still be uncommitted
BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)  # seconds


@dataclass(frozen=True)
class Counts:
    """The counters at one moment."""

    runs: Counter[tuple[str, str]] = field(default_factory=Counter)  # by trigger and state
    acknowledged: int = 0
    rejected: int = 0
    durations: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)  # each in its own bucket; the last one has no end
    seconds: float = 0.0

    def and_with(self, ended: Sequence[Ended]) -> Counts:
        """These and the runs that ended."""
        durations = list(self.durations)
        seconds = [run.duration.total_seconds() for run in ended if run.duration is not None]
        for one in seconds:
            durations[bisect_left(BUCKETS, one)] += 1
        return Counts(
            runs=self.runs + Counter((run.trigger, run.state) for run in ended),
            acknowledged=self.acknowledged + sum(run.acknowledged for run in ended),
            rejected=self.rejected + sum(run.rejected for run in ended),
            durations=tuple(durations),
            seconds=self.seconds + sum(seconds),
        )


class EndedRunCounters:
    """The memory of the counters; `counts` may be read at any time, also while a look waits for the database.

    `clock` is for the ids passed over alone, in seconds from anywhere.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = Counts()
        self._clock = clock
        self._looking = Lock()
        self._through: int | None = None  # ids up to here have been seen; none: nothing has
        self._open: set[int] = set()
        self._passed: dict[int, float] = {}  # ids below that were not there, and since when

    def look(self, session: Session) -> None:
        """Count what has ended since the last look; the first one only learns where to begin."""
        with self._looking:
            newest = metric_queries.newest_run(session)
            first = self._through is None
            # Lower than last time: another database was put in its place, or the newest binding removed.
            through = max(0, newest - LOOK_BACK) if self._through is None else min(self._through, newest)
            new = metric_queries.runs_after(session, through)
            still_open = metric_queries.open_runs(session)
            gone = (self._open | new | self._passed.keys()) - still_open
            ended = [] if first else list(metric_queries.ended(session, gone))
            self._pass(through, new, {run.id for run in ended} | still_open)
            self._through, self._open = max(new, default=through), still_open
            self.counts = self.counts.and_with(ended)

    def _pass(self, through: int, new: set[int], found: set[int]) -> None:
        now, newest = self._clock(), max(new, default=through)
        self._passed |= dict.fromkeys(set(range(max(through, newest - LOOK_BACK) + 1, newest)) - new, now)
        self._passed = {
            run: since
            for run, since in self._passed.items()
            if run not in found and now - since < LATE_SECONDS
        }
