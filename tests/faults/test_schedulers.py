"""Schedulers that are killed, frozen and absent for hours, brokers and databases that go away.

No occurrence is lost or doubled: each is a run, or counted in exactly one row as missed.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from sqlalchemy import func, select

from config.settings import Settings
from models.database import Database
from models.runs import claims, lifecycle
from models.setup.bindings import Timing
from models.tables import CohortBinding, SyncRun
from models.types import UNFINISHED, RunState, Stage
from tests import mains
from tests.factories import make_binding, make_destination, make_source
from tests.forked import Forked
from tests.support import Valkey, environment

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 23, tzinfo=UTC)  # a Monday; clocks in Berlin go forward on Sunday
WEEK = timedelta(days=7)
STEP = timedelta(hours=2)
DOWNTIMES = (timedelta(hours=5), timedelta(hours=26))  # nobody ticks: the clock jumps
CRONS = (
    ("0 */2 * * *", "UTC"),
    ("45 1-23/2 * * *", "Asia/Tokyo"),
    ("0 */6 * * *", "UTC"),
    ("17 6,18 * * *", "America/New_York"),
    ("30 2 * * *", "Europe/Berlin"),
    ("5 4 * * mon-fri", "Asia/Kolkata"),
)


class Schedulers:
    """Some scheduler processes on one database and one broker, with one simulated clock."""

    def __init__(self, settings: Settings, directory: Path, number: int) -> None:
        self._clock = directory / "clock"
        self._environment = environment(settings) | {
            "COHORT_SYNC_TICK_SECONDS": "0.03",
        }
        self._thaws: list[threading.Timer] = []
        self.set_clock(START)
        self.processes = [self._spawn() for _ in range(number)]

    def set_clock(self, now: datetime) -> None:
        draft = self._clock.with_suffix(".draft")
        draft.write_text(str(now.timestamp()))
        draft.replace(self._clock)
        self.now = now

    def kill(self, place: int) -> None:
        """SIGKILL one and start another in its place."""
        self.processes[place].kill()
        self.processes[place].wait()
        self.processes[place] = self._spawn()

    def freeze(self, place: int, seconds: float) -> None:
        """SIGSTOP one wherever it is, SIGCONT later: by a timer, for it may hold SQLite's lock meanwhile."""
        process = self.processes[place]
        process.send_signal(signal.SIGSTOP)
        self._thaws.append(threading.Timer(seconds, process.send_signal, [signal.SIGCONT]))
        self._thaws[-1].start()

    def close(self) -> None:
        for thaw in self._thaws:
            thaw.join()
        for process in self.processes:
            process.kill()
            process.wait()

    def _spawn(self) -> Forked:
        return Forked(mains.simulated_scheduler, [str(self._clock)], env=self._environment, cwd=ROOT)


class Worker:
    """Takes messages as a worker does, and finishes each run that it can claim."""

    def __init__(self, db: Database, valkey: Valkey) -> None:
        self._db, self._valkey = db, valkey
        self.executed: Counter[int] = Counter()
        self.messages = 0

    def work(self, now: datetime) -> None:
        while (message := self._valkey.pop()) is not None:
            self.messages += 1
            _task, run_id = message
            claim = claims.claim(self._db, run_id, Stage.SNAPSHOT, now=now, lease=30)
            if claim is None:
                continue
            with claims.fenced(self._db, claim, now=now, lease=30) as (session, run):
                lifecycle.finish(session, run, RunState.SUCCEEDED, now=now)
            self.executed[run_id] += 1


def anything_left(db: Database, now: datetime) -> bool:
    with db.read() as session:
        due = session.scalar(select(func.count()).where(CohortBinding.next_due_at <= now))
        unfinished = session.scalar(select(func.count()).where(SyncRun.state.in_(UNFINISHED)))
    return bool(due or unfinished)


def expected_occurrences(cron: str, timezone: str, until: datetime) -> list[datetime]:
    """By cronsim, which the product does not use."""
    found = []
    for occurrence in CronSim(cron, START.astimezone(ZoneInfo(timezone))):
        if occurrence > until:
            return found
        found.append(occurrence.astimezone(UTC))
    return found


@pytest.fixture
def bindings(db: Database) -> list[CohortBinding]:
    """Three bindings of each schedule, by catch-up; the scheduler itself computes their first occurrence."""
    make_source(db)
    make_destination(db)
    return [
        make_binding(
            db,
            timing=Timing(
                cron, timezone, next_due_at=START, catchup=catchup, catchup_window_seconds=hours * 3600
            ),
        )
        for cron, timezone in CRONS
        for catchup, hours in (("latest", 24), ("latest", 3), ("none", 24))
    ]


@pytest.fixture
def schedulers(stack: Settings, tmp_path: Path) -> Iterator[Schedulers]:
    fleet = Schedulers(stack, tmp_path, 3)
    yield fleet
    fleet.close()


@pytest.mark.timeout(400)  # 15 s on two free cores
def test_week_of_kills_freezes_and_downtimes_accounts_for_every_occurrence_exactly_once(
    db: Database, valkey: Valkey, bindings: list[CohortBinding], schedulers: Schedulers
) -> None:
    rng = random.Random(20260323)
    worker = Worker(db, valkey)
    faults: Counter[str] = Counter()
    step = START
    while step < START + WEEK:
        fault = rng.choices(["none", "kill", "freeze", "flush", "downtime"], [34, 12, 34, 12, 8])[0]
        faults[fault] += 1
        step = min(step + (rng.choice(DOWNTIMES) if fault == "downtime" else STEP), START + WEEK)
        schedulers.set_clock(step)
        time.sleep(rng.random() * 0.02 if fault != "none" else 0)
        if fault == "kill":
            schedulers.kill(rng.randrange(3))
        elif fault == "freeze":
            schedulers.freeze(rng.randrange(3), rng.random() * 0.4)
        elif fault == "flush":
            valkey.client.flushall()
        settle(db, worker, schedulers)

    assert min(faults[one] for one in ("kill", "freeze", "flush", "downtime")) >= 3
    with db.read() as session:
        rows = session.scalars(select(SyncRun).order_by(SyncRun.scheduled_for)).all()
    made = [row for row in rows if row.state == RunState.SUCCEEDED]
    missed = [row for row in rows if row.state == RunState.SKIPPED]
    assert len(made) + len(missed) == len(rows)
    assert {row.error_code for row in missed} == {"OCCURRENCES_MISSED"}
    for binding in bindings:
        assert binding.cron
        due = expected_occurrences(binding.cron, binding.timezone, START + WEEK)
        assert accounted([row for row in rows if row.binding_id == binding.id], due) == due
    assert any(row.missed for row in made)
    assert worker.executed == Counter(row.id for row in made), "each run was executed once"


def accounted(rows: list[SyncRun], due: list[datetime]) -> list[datetime]:
    """The occurrences that a binding's rows account for: their own, and the missed ones, by count and beginning."""
    found: list[datetime] = []
    for row in rows:
        if row.missed_since is not None:
            first = due.index(row.missed_since)
            found += due[first : first + row.missed]
        if row.state != RunState.SKIPPED:
            found.append(row.scheduled_for)
        assert found[-1] == row.scheduled_for
    return found


def settle(db: Database, worker: Worker, schedulers: Schedulers) -> None:
    """Work until nothing is left. A quarter of a second without an end stands for the wait after a lost message."""
    began = moved = time.monotonic()
    while anything_left(db, schedulers.now):
        worker.work(schedulers.now)
        if time.monotonic() - moved > 0.25:
            assert time.monotonic() - began < 60, "stuck"
            schedulers.set_clock(schedulers.now + timedelta(seconds=11))
            moved = time.monotonic()
        time.sleep(0.002)
