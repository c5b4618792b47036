"""Processes and servers killed, frozen and cut off in the middle of runs: each run ends by itself, and is right.

Nothing in the product helps these tests to hit a certain instruction: they strike at seeded random moments, with
many small batches on a vendor that takes its time.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import select, text

from models.tables import CohortBinding, StageClaim
from models.types import BatchState, RunState
from tests.contract.sandboxed import Sandbox
from tests.product import UPSERT, Product, running_product, settings_for, valkey_over_tcp
from tests.support import wait_until

FIELDS = ("Purchasers", "Churn Risk", "Trialers")
# A vendor that takes no more than some ten rows at once, a tenth of a second each: a dozen batches a run.
SLOW = {"async_max_bytes": 600, "async_queue_seconds": 0.05, "async_execute_seconds": 0.05}


@pytest.fixture(scope="module")
def crew_on_sqlite(vendors: Sandbox, short_path: Path) -> Iterator[Product]:
    """Two worker processes on SQLite and the embedded Valkey: what is killed is started again."""
    directory = short_path / "kills"
    directory.mkdir()
    settings = settings_for(vendors, directory, log_level="DEBUG")
    with running_product(vendors, settings, directory, workers=2) as product:
        yield product


@pytest.fixture(scope="module")
def crew_on_postgresql(
    vendors: Sandbox, short_path: Path, postgres_url: str, postgres_template: str
) -> Iterator[Product]:
    """The same on PostgreSQL, with a Valkey over TCP that the stack does not own."""
    directory = short_path / "kills-pg"
    directory.mkdir()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE kills TEMPLATE {postgres_template}")
    with valkey_over_tcp() as redis_url:
        settings = settings_for(
            vendors,
            directory,
            database_url=postgres_url.replace("/postgres?", "/kills?"),
            redis_url=redis_url,
            log_level="DEBUG",
        )
        with running_product(vendors, settings, directory, workers=2) as product:
            yield product


@pytest.fixture(params=["sqlite", "postgresql"])
def crew(request: pytest.FixtureRequest) -> Iterator[Product]:
    found: Product = request.getfixturevalue(f"crew_on_{request.param}")
    found.begin()
    found.sandbox.switch(**SLOW)
    yield found
    found.forget()


@pytest.fixture
def crew_of_two(crew_on_postgresql: Product) -> Iterator[Product]:
    crew_on_postgresql.begin()
    crew_on_postgresql.sandbox.switch(**SLOW)
    yield crew_on_postgresql
    crew_on_postgresql.forget()


@pytest.fixture
def embedded_crew(crew_on_sqlite: Product) -> Iterator[Product]:
    crew_on_sqlite.begin()
    crew_on_sqlite.sandbox.switch(**SLOW)
    yield crew_on_sqlite
    crew_on_sqlite.forget()


def signal_group(product: Product, name: str, number: int) -> None:
    """Signal a process of the stack and all it forked."""
    pid = product.stack.pid(name)
    if pid is not None:
        os.killpg(pid, number)


def kill_a_child(product: Product, name: str, rng: random.Random) -> None:
    """SIGKILL one pool process: its worker stays and forks another."""
    pid = product.stack.pid(name)
    children = psutil.Process(pid).children() if pid else []
    if children:
        rng.choice(children).kill()


def keys(generation: int, field: int) -> set[str]:
    """Members that turn round with every generation: a late write of an older one would show."""
    rng = random.Random(f"{generation} {field}")
    return {f"member-{number:03d}" for number in range(200) if rng.random() < 0.5}


def settled(product: Product, run_id: int) -> None:
    """Every batch of a run that succeeded was acknowledged, or was replaced by smaller ones."""
    states = product.batch_states(run_id)
    assert states <= {BatchState.ACKNOWLEDGED, BatchState.DROPPED}, states
    run = product.run(run_id)
    assert run.acknowledged == run.entered + run.exited
    assert sum(b.n for b in product.batches(run_id) if b.state == BatchState.ACKNOWLEDGED) == run.acknowledged


def go(product: Product, bound: list[CohortBinding], generation: int) -> list[int]:
    return [
        product.start(one, snapshot_id=product.file(one, keys(generation, number)))
        for number, one in enumerate(bound)
    ]


def right(product: Product, bound: list[CohortBinding], generation: int) -> None:
    for number, one in enumerate(bound):
        assert product.flagged(one.attribute) == keys(generation, number)
        assert product.binding(one).member_count == len(keys(generation, number))


def unfinished(product: Product, started: list[int]) -> bool:
    return any(not RunState(product.run(run_id).state).finished for run_id in started)


@pytest.mark.parametrize("seed", [1])
def test_killed_at_any_moment(crew: Product, seed: int) -> None:
    """Kill -9 of pool processes and of whole workers, again and again, in runs that contradict each other."""
    rng = random.Random(seed)
    bound = [crew.bind("purchrs", field) for field in FIELDS]
    for generation in range(2):
        started = go(crew, bound, 10 * seed + generation)
        for _ in range(4):
            time.sleep(rng.uniform(0.1, 0.9))
            if not unfinished(crew, started):
                break
            worker = rng.choice(["worker-1", "worker-2"])
            if rng.random() < 0.7:
                kill_a_child(crew, worker, rng)
            else:
                signal_group(crew, worker, signal.SIGKILL)
        for run_id in started:
            run = crew.ended(run_id, seconds=90)
            assert (run.state, run.error_code) == (RunState.SUCCEEDED, None)
            settled(crew, run_id)
        right(crew, bound, 10 * seed + generation)


def at_work(product: Product, run_id: int) -> tuple[str, int] | None:
    """Which worker waits at the vendor with a batch of the run, and its claim's number: a claim not left."""
    if BatchState.SENDING not in product.batch_states(run_id):
        return None
    with product.db.read() as session:
        claim = session.scalars(
            select(StageClaim).where(StageClaim.run_id == run_id, StageClaim.left_at.is_(None))
        ).one_or_none()
        return (claim.worker.partition("@")[0], claim.fence) if claim and claim.worker else None


def test_frozen_past_its_lease(crew: Product) -> None:
    """A worker stopped in the middle of an upsert thaws after another has done its work: it changes nothing."""
    binding = crew.bind()
    crew.sandbox.fault({"path": UPSERT, "times": 1, "action": {"kind": "delay", "seconds": 6.0}})
    run_id = crew.start(binding, snapshot_id=crew.file(binding, keys(1, 1)))
    worker, fence = wait_until(lambda: at_work(crew, run_id), seconds=30)
    signal_group(crew, worker, signal.SIGSTOP)
    try:
        run = crew.ended(run_id)
    finally:
        told = crew.log.stat().st_size
        signal_group(crew, worker, signal.SIGCONT)
    assert run.state == RunState.SUCCEEDED
    assert run.fence > fence
    wait_until(lambda: "lease_lost" in crew.log.read_bytes()[told:].decode(), seconds=60)
    after = crew.run(run_id)
    assert (after.fence, after.state, after.acknowledged) == (run.fence, run.state, run.acknowledged)
    settled(crew, run_id)
    assert crew.flagged("Purchasers") == keys(1, 1)
    crew.succeeds(binding, snapshot_id=crew.file(binding, keys(2, 1)))
    assert crew.flagged("Purchasers") == keys(2, 1)


def kill_the_broker(product: Product) -> None:
    signal_group(product, "valkey", signal.SIGKILL)


def flush_the_broker(product: Product) -> None:
    product.redis.flushall()


def cut_the_connections(product: Product) -> None:
    product.redis.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("strike", [kill_the_broker, flush_the_broker, cut_the_connections])
def test_the_broker_fails_in_mid_run(embedded_crew: Product, strike: Callable[[Product], None]) -> None:
    product = embedded_crew
    bound = [product.bind("purchrs", field) for field in FIELDS]
    started = go(product, bound, 1)
    wait_until(product.puts, seconds=30)
    strike(product)
    for run_id in started:
        assert product.ended(run_id, seconds=90).state == RunState.SUCCEEDED
        settled(product, run_id)
    right(product, bound, 1)


def test_database_connections_are_cut_again_and_again(crew_of_two: Product) -> None:
    product = crew_of_two
    bound = [product.bind("purchrs", field) for field in FIELDS]
    started = go(product, bound, 1)
    rng = random.Random(5)
    for _ in range(6):
        time.sleep(rng.uniform(0.05, 0.3))
        with product.db.read() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
    for run_id in started:
        assert product.ended(run_id, seconds=90).state == RunState.SUCCEEDED
        settled(product, run_id)
    right(product, bound, 1)


def test_cancelled_while_its_worker_is_dead(embedded_crew: Product) -> None:
    """Nobody knows of the batch that was being sent; the next run writes over whatever it did."""
    product = embedded_crew
    binding = product.bind()
    product.sandbox.fault({"path": UPSERT, "nth": 5, "action": {"kind": "delay", "seconds": 5.0}})
    run_id = product.start(binding, snapshot_id=product.file(binding, keys(1, 1)))
    wait_until(lambda: len(product.batches(run_id)) > 4, seconds=30)
    for worker in ("worker-1", "worker-2"):
        signal_group(product, worker, signal.SIGKILL)
    product.cancel(run_id)
    run: Any = product.ended(run_id)
    assert run.state == RunState.CANCELLED
    assert not product.batch_states(run_id) & {BatchState.PLANNED, BatchState.SENDING}
    product.succeeds(binding, snapshot_id=product.file(binding, keys(2, 1)))
    assert product.flagged("Purchasers") == keys(2, 1)
    assert product.batch_states(run_id) <= {
        BatchState.ACKNOWLEDGED,
        BatchState.DROPPED,
        BatchState.SUPERSEDED,
    }
