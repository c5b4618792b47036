"""A worker that is told to leave does, whatever it is at; what it held goes on at once, long before its lease ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import Settings
from models.database import Database
from models.tables import StageClaim
from models.types import RunState
from tests.contract.sandboxed import Sandbox
from tests.product import Product, product_beside_its_queue, settings_for
from tests.support import ROOT, environment, wait_until
from worker.departure import GRACE_SECONDS

# Without what is tested here nothing would go on before this.
LEASE_SECONDS = 120.0
UP = "import sys, cohort_sync; sys.argv[1:] = ['up']; sys.exit(cohort_sync.main())"
DOWNLOAD = r"/api/5/cohorts/request/[^/]+/file"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def leaving(request: pytest.FixtureRequest) -> Iterator[Product]:
    with product_beside_its_queue(request, request.param, "leaving", lease_seconds=LEASE_SECONDS) as product:
        yield product


def at_a_download_that_hangs(product: Product) -> tuple[int, int]:
    """A run whose worker waits for a file that does not come, and its fence."""
    product.begin()
    binding = product.bind()
    product.sandbox.fault({"path": DOWNLOAD, "action": {"kind": "hang", "seconds": 100}})
    run_id = product.start(binding)
    wait_until(lambda: product.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    run = product.run(run_id)
    assert run.state == RunState.RUNNING
    product.sandbox.fault()
    return run_id, run.fence


def at_a_long_download(product: Product) -> tuple[int, int, int]:
    """The same, and the worker's process."""
    run_id, fence = at_a_download_that_hangs(product)
    pid = product.stack.pid("worker-1")
    assert pid is not None
    return run_id, fence, pid


def goes_on(product: Product, run_id: int, fence: int, *, attempt: int) -> None:
    began = time.monotonic()
    wait_until(lambda: product.run(run_id).fence > fence, seconds=LEASE_SECONDS / 2)
    assert product.run(run_id).attempt == attempt or product.run(run_id).stage != "snapshot"
    assert product.ended(run_id, seconds=60).state == RunState.SUCCEEDED
    assert time.monotonic() - began < LEASE_SECONDS / 2
    with product.db.read() as session:
        held = session.get_one(StageClaim, (run_id, fence))
    assert (held.left_at is None) == bool(attempt), "who was killed said nothing of leaving"
    product.equal("purchrs", "Purchasers")
    product.forget()


def ended(product: Product, pid: int, *, seconds: float) -> None:
    wait_until(lambda: product.stack.pid("worker-1") != pid, seconds=seconds)


def test_told_to_leave_it_leaves_within_its_time(leaving: Product) -> None:
    run_id, fence, pid = at_a_long_download(leaving)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    ended(leaving, pid, seconds=30)
    assert time.monotonic() - began > GRACE_SECONDS / 2  # its task had its time
    goes_on(leaving, run_id, fence, attempt=0)


def test_told_twice_it_leaves_at_once(leaving: Product) -> None:
    run_id, fence, pid = at_a_long_download(leaving)
    os.kill(pid, signal.SIGTERM)
    time.sleep(1)
    os.kill(pid, signal.SIGTERM)
    ended(leaving, pid, seconds=GRACE_SECONDS / 2)
    goes_on(leaving, run_id, fence, attempt=0)


def test_killed_it_gives_its_runs_back_when_it_comes_again(leaving: Product) -> None:
    run_id, fence, pid = at_a_long_download(leaving)
    os.killpg(pid, signal.SIGKILL)
    goes_on(leaving, run_id, fence, attempt=1)


@contextmanager
def up(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`cohort-sync up`, once it is ready; killed with everything that it started."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", UP],
            cwd=ROOT,
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        wait_until(lambda: "ready; Ctrl-C" in log.read_text(), seconds=60, pause=0.1)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(300)
def test_a_killed_up_takes_its_runs_over_when_it_comes_again(vendors: Sandbox, short_path: Path) -> None:
    """Not after the rest of their lease."""
    directory = short_path / "killed-up"
    directory.mkdir()
    settings = settings_for(vendors, directory, lease_seconds=LEASE_SECONDS)
    with up(settings, directory / "first") as process:
        product = Product(Database(settings), vendors, None, directory / "first")
        run_id, fence = at_a_download_that_hangs(product)
        process.kill()
        process.wait()
    with up(settings, directory / "second"):
        goes_on(product, run_id, fence, attempt=1)
    product.close()
    product.db.dispose()
