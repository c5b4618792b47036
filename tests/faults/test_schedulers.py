"""Schedulers that are killed and frozen, brokers and databases that go away: no occurrence is lost or doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
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
from models import runs
from models.bindings import Timing
from models.database import Database
from models.tables import CohortBinding, SyncRun
from models.types import UNFINISHED, RunState, Stage
from tests.factories import make_binding, make_destination, make_source
from tests.support import Valkey, environment

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 23, tzinfo=UTC)  # a Monday; clocks in Berlin go forward on Sunday
WEEK = timedelta(days=7)
STEP = timedelta(hours=2)
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
            "PYTHONPATH": str(ROOT),
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

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("simulated_scheduler.py")), str(self._clock)],
            env=self._environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


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
            claim = runs.claim(self._db, run_id, Stage.SNAPSHOT, now=now, lease=30)
            if claim is None:
                continue
            with runs.fenced(self._db, claim, now=now, lease=30) as (session, run):
                runs.finish(session, run, RunState.SUCCEEDED, now=now)
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
    """Two bindings of each schedule; the scheduler itself computes their first occurrence."""
    make_source(db)
    make_destination(db)
    return [
        make_binding(db, timing=Timing(cron=cron, timezone=timezone, next_due_at=START))
        for cron, timezone in CRONS
        for _ in range(2)
    ]


@pytest.fixture
def schedulers(stack: Settings, tmp_path: Path) -> Iterator[Schedulers]:
    fleet = Schedulers(stack, tmp_path, 3)
    yield fleet
    fleet.close()


@pytest.mark.timeout(400)  # 12 s on two free cores
def test_week_of_kills_and_freezes_runs_every_occurrence_exactly_once(
    db: Database, valkey: Valkey, bindings: list[CohortBinding], schedulers: Schedulers
) -> None:
    rng = random.Random(20260323)
    worker = Worker(db, valkey)
    faults: Counter[str] = Counter()
    step = START
    while step < START + WEEK:
        step += STEP
        schedulers.set_clock(step)
        fault = rng.choices(["none", "kill", "freeze", "flush"], [42, 9, 38, 11])[0]
        faults[fault] += 1
        time.sleep(rng.random() * 0.02 if fault != "none" else 0)
        if fault == "kill":
            schedulers.kill(rng.randrange(3))
        elif fault == "freeze":
            schedulers.freeze(rng.randrange(3), rng.random() * 0.4)
        elif fault == "flush":
            valkey.client.flushall()
        settle(db, worker, schedulers)

    assert min(faults["kill"], faults["freeze"], faults["flush"]) >= 3
    with db.read() as session:
        rows = session.execute(
            select(SyncRun.id, SyncRun.binding_id, SyncRun.scheduled_for, SyncRun.state)
        ).all()
    assert {row.state for row in rows} == {RunState.SUCCEEDED}
    for binding in bindings:
        assert binding.cron
        got = sorted(row.scheduled_for for row in rows if row.binding_id == binding.id)
        assert got == expected_occurrences(binding.cron, binding.timezone, START + WEEK)
    assert worker.executed == Counter(row.id for row in rows), "each run was executed once"


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
