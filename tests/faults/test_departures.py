"""A worker that is told to leave does, whatever it is at; what it held goes on at once, long before its lease ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from models.tables import StageClaim
from models.types import RunState
from tests.product import Product, product_beside_its_queue
from tests.support import wait_until
from worker.departure import GRACE_SECONDS

# Without what is tested here nothing would go on before this.
LEASE_SECONDS = 120.0
DOWNLOAD = r"/api/5/cohorts/request/[^/]+/file"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def leaving(request: pytest.FixtureRequest) -> Iterator[Product]:
    with product_beside_its_queue(request, request.param, "leaving", lease_seconds=LEASE_SECONDS) as product:
        yield product


def at_a_long_download(product: Product) -> tuple[int, int, int]:
    """A run whose worker waits for a file that does not come; its fence, and the worker's process."""
    product.begin()
    binding = product.bind()
    product.sandbox.fault({"path": DOWNLOAD, "action": {"kind": "hang", "seconds": 100}})
    run_id = product.start(binding)
    wait_until(lambda: product.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    pid = product.stack.pid("worker-1")
    assert pid is not None
    run = product.run(run_id)
    assert run.state == RunState.RUNNING
    product.sandbox.fault()
    return run_id, run.fence, pid


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
