"""Every process of a busy stack is replaced, one by one: no run fails, nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select

from cli.stack.stack import Stack
from models.database import Database
from models.tables import CohortBinding, PushBatch, Snapshot, SyncRun
from models.types import RunState, SnapshotKind, SnapshotState
from tests.contract.sandboxed import Sandbox
from tests.product import Product, settings_for, valkey_over_tcp
from tests.support import wait_until

pytestmark = pytest.mark.timeout(400)
BINDINGS = (("purchrs", "Purchasers"), ("churnrk", "Churn Risk"), ("trialer", "Trialers"))
BACK_SECONDS = 60.0


@contextmanager
def whole_stack(product_settings: Any, vendors: Sandbox, directory: Path) -> Iterator[Product]:
    """With two workers, Flower and the monitor."""
    log = directory / "log"
    with Stack(product_settings, workers=2, log=log) as stack:
        product = Product(Database(product_settings), vendors, stack, log)
        try:
            assert stack.wait_until_ready(), log.read_text()[-3000:]
            yield product
        finally:
            product.close()
            product.db.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def busy(request: pytest.FixtureRequest, vendors: Sandbox, short_path: Path) -> Iterator[Product]:
    directory = short_path / f"rolling-{request.param}"
    directory.mkdir()
    if request.param == "sqlite":
        with whole_stack(
            settings_for(vendors, directory, worker_concurrency=2), vendors, directory
        ) as product:
            yield product
        return
    server, template = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_template")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE rolling TEMPLATE {template}")
    with valkey_over_tcp() as redis_url:
        url = server.replace("/postgres?", "/rolling?")
        settings = settings_for(
            vendors, directory, worker_concurrency=2, redis_url=redis_url, database_url=url
        )
        with whole_stack(settings, vendors, directory) as product:
            yield product


class Work:
    """Runs of a binding, one after the other, each after a change, until told to end."""

    def __init__(self, product: Product, binding: CohortBinding) -> None:
        self._product, self._binding = product, binding
        self._over = threading.Event()
        self.failed: BaseException | None = None
        self.runs = 0
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def _work(self) -> None:
        try:
            while not self._over.is_set():
                self._product.cohort(self._binding.cohort_id, churn={"enter": 30, "exit": 10})
                self._product.succeeds(self._binding)
                self.runs += 1
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test's thread
            self.failed = error


def test_each_is_replaced_while_the_others_work(busy: Product) -> None:
    busy.begin()
    busy.sandbox.switch(
        async_queue_seconds=0.5,
        async_execute_seconds=0.5,
        amplitude_rate_per_10_minutes=0,
        amplitude_monthly_quota=0,
        amplitude_parallel=0,
    )
    work = [Work(busy, busy.bind(*names)) for names in BINDINGS]
    try:
        for name in [*busy.stack.names, *(["valkey"] if busy.stack.valkey else [])]:
            before = [one.runs for one in work]
            wait_until(lambda before=before: _gone_on(work, before), seconds=BACK_SECONDS)
            for key in busy.redis.scan_iter("cohort-sync:limit:*"):  # Amplitude's ten minutes have passed
                busy.redis.delete(key)
            _replace(busy.stack, name)
            before = [one.runs for one in work]
            wait_until(lambda before=before: _gone_on(work, before), seconds=BACK_SECONDS)
    finally:
        for one in work:
            one.end()
    for page in (f"{busy.stack.flower_url}/healthcheck", f"{busy.stack.monitor_url}/livez"):
        with urllib.request.urlopen(page, timeout=10) as answer:  # noqa: S310 - ours
            assert answer.status == 200
    _nothing_lost_and_nothing_twice(busy)


def _gone_on(work: list[Work], before: list[int]) -> bool:
    """Whether each has ended a run since."""
    for one in work:
        if one.failed is not None:
            raise one.failed
    return all(one.runs > runs for one, runs in zip(work, before, strict=True))


def _replace(stack: Stack, name: str) -> None:
    """SIGTERM, as a deploy does; the stack starts it again."""
    pid = stack.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: stack.pid(name) not in {pid, None}, seconds=BACK_SECONDS)


def _nothing_lost_and_nothing_twice(product: Product) -> None:
    for cohort, attribute in BINDINGS:
        product.equal(cohort, attribute)
    with product.db.read() as session:
        assert set(session.scalars(select(SyncRun.state))) == {RunState.SUCCEEDED}
        assert session.scalar(select(func.max(SyncRun.attempt))) == 0
        batches = session.scalar(select(func.count(PushBatch.id)))
        # One that our own limit kept from being requested has failed, and cost nothing.
        requested = (Snapshot.kind == SnapshotKind.DOWNLOAD) & (Snapshot.state == SnapshotState.COMPLETED)
        downloads = session.scalar(select(func.count(Snapshot.id)).where(requested))
    assert len(product.puts()) == batches
    assert product.downloads() == downloads
    assert product.most_in_flight() <= 2
