"""The first sync of a cohort by webhook beside a bare endpoint that stores the same bodies in the same database.

Two million members are 2,000 messages; four senders keep their connections, as Amplitude has four threads. Both run in
one go, in turns, on SQLite and on PostgreSQL. WEBHOOK_MESSAGES makes it shorter.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psutil

from config.settings import Settings
from models import schema
from models.database import Database
from models.types import Feed
from tests.benchmarks.measure import table
from tests.benchmarks.scheduler import on_both
from tests.factories import make_binding, make_destination, make_source
from tests.receivers import Line, Receiver, make_secret, message
from tests.support import environment, wait_until

MESSAGES = int(os.environ.get("WEBHOOK_MESSAGES", "2000"))
USERS = 1_000
AT_ONCE = 4
ROUNDS = 10
SOURCE = "shop"


def main() -> None:
    """SQLite, then PostgreSQL."""
    on_both(measure, logging.CRITICAL)


def measure(name: str, settings: Settings) -> None:
    """One database."""
    db = Database(settings)
    schema.upgrade(db)
    make_source(db, SOURCE)
    make_destination(db)
    make_binding(db, source=SOURCE, cohort_id="purchrs", feed=Feed.WEBHOOK)
    secret = make_secret(db, SOURCE, datetime.now(UTC))
    series, computed = uuid.uuid4(), str(int(time.time()))
    users = [[str(uuid.uuid4()) for _ in range(USERS)] for _ in range(MESSAGES)]
    bodies = [
        orjson.dumps(message(some, message_id=f"{series}::enter::{n}", computed_time=computed))
        for n, some in enumerate(users)
    ]
    alone, ours = Measured(), Measured()
    with (
        tempfile.TemporaryDirectory() as folder,
        bare(settings, Path(folder)) as (url, process),
        receiving(settings, Path(folder)) as receiver,
    ):
        for number in range(ROUNDS):  # in turns, so that whatever else the machine does strikes both
            some = bodies[number::ROUNDS]
            alone.add(process, url, secret, some)
            ours.add(psutil.Process(receiver.process.pid), receiver.url, secret, some)
    table(
        f"{name}: {MESSAGES:,} messages of {USERS:,} users",
        [
            ("a bare endpoint", alone.shown()),
            ("the receiver", ours.shown()),
            ("ratio", f"{ours.seconds / alone.seconds:.2f}"),
            ("load of the machine", f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"),
        ],
    )
    db.dispose()


@dataclass
class Measured:
    """What one of the two took."""

    seconds: float = 0.0
    computed: float = 0.0
    slowest: float = 0.0
    before: int = 0
    after: int = 0

    def add(self, process: psutil.Process, url: str, secret: str, bodies: list[bytes]) -> None:
        """One round more."""
        started = cpu(process)
        took, slowest = send(url, secret, bodies)
        self.after = process.memory_info().rss
        self.before = self.before or self.after
        self.seconds, self.computed = self.seconds + took, self.computed + cpu(process) - started
        self.slowest = max(self.slowest, slowest)

    def shown(self) -> str:
        """As the table has it; memory grows from the end of the first round on."""
        grown = (self.after - self.before) / 1e6
        return (
            f"{self.seconds:.1f} s ({self.computed:.1f} s of CPU), slowest answer {self.slowest * 1000:.0f} ms,"
            f" {grown:.0f} MB grown"
        )


def cpu(process: psutil.Process) -> float:
    """Seconds that the process has computed."""
    times = process.cpu_times()
    return float(times.user + times.system)


def send(url: str, secret: str, bodies: list[bytes]) -> tuple[float, float]:
    """Seconds for all of them, and the slowest answer."""
    lines = [Line(url, SOURCE, secret) for _ in range(AT_ONCE)]
    wait_until(lambda: lines[0].send(b"") != 401, seconds=10)
    for line in lines:
        line.seconds.clear()

    def carry(number: int) -> None:
        for body in bodies[number::AT_ONCE]:
            assert lines[number].send(body) == 200

    threads = [threading.Thread(target=carry, args=(number,)) for number in range(AT_ONCE)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    return took, max(second for line in lines for second in line.seconds)


@contextmanager
def receiving(settings: Settings, folder: Path) -> Iterator[Receiver]:
    """The receiver as a process."""
    receiver = Receiver(settings, folder / "receiver.log")
    try:
        yield receiver
    finally:
        receiver.close()


@contextmanager
def bare(settings: Settings, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The other endpoint: its address, and its process."""
    log = (folder / "bare.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.bare_endpoint"],
        env=os.environ | environment(settings),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()
        log.close()
