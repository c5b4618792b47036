"""The first sync of a cohort by webhook beside a bare endpoint that stores the same bodies in the same database.

Two million members are 2,000 messages; four senders keep their connections, as Amplitude has four threads. Both run in
one go, on SQLite and on PostgreSQL. WEBHOOK_MESSAGES makes it shorter.
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
    with tempfile.TemporaryDirectory() as folder:
        with bare(settings, Path(folder)) as (url, process):
            started = cpu(process)
            alone = send(url, secret, bodies)
            alone_cpu = cpu(process) - started
        receiver = Receiver(settings, Path(folder) / "receiver.log")
        try:
            process = psutil.Process(receiver.process.pid)
            before, started = process.memory_info().rss, cpu(process)
            ours = send(receiver.url, secret, bodies)
            grown, ours_cpu = process.memory_info().rss - before, cpu(process) - started
        finally:
            receiver.close()
    table(
        f"{name}: {MESSAGES:,} messages of {USERS:,} users",
        [
            (
                "a bare endpoint",
                f"{alone[0]:.1f} s ({alone_cpu:.1f} s of CPU), slowest answer {alone[1] * 1000:.0f} ms",
            ),
            (
                "the receiver",
                f"{ours[0]:.1f} s ({ours_cpu:.1f} s of CPU), slowest {ours[1] * 1000:.0f} ms,"
                f" {grown / 1e6:.0f} MB grown",
            ),
            ("ratio", f"{ours[0] / alone[0]:.2f}"),
            ("load of the machine", f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"),
        ],
    )
    db.dispose()


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
