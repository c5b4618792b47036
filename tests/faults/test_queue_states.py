"""A queue that answers and takes nothing: it is said while it lasts, and everything goes on when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from models.types import RunState
from tests.integration.door import Door
from tests.product import Product, product_beside_its_queue, valkey_over_tcp
from tests.scrape import running_monitor
from tests.support import wait_until

Change = Callable[[Redis, str], None]


@pytest.fixture(scope="module")
def apart(request: pytest.FixtureRequest) -> Iterator[Product]:
    with product_beside_its_queue(request, "sqlite", "states") as product:
        yield product


def replica(queue: Redis, primary: str) -> None:
    """A failed-over server that nobody has told us of."""
    there = urlsplit(primary)
    queue.execute_command("REPLICAOF", there.hostname, there.port)


def full(queue: Redis, _: str) -> None:
    queue.config_set("maxmemory-policy", "noeviction")
    queue.config_set("maxmemory", "1")


def another_password(queue: Redis, _: str) -> None:
    queue.config_set("requirepass", "changed")
    queue.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def restore(queue: Redis) -> None:
    queue.execute_command("REPLICAOF", "NO", "ONE")
    queue.config_set("maxmemory", "0")
    queue.config_set("requirepass", "")


@pytest.mark.parametrize("change", [replica, full, another_password])
def test_a_queue_that_takes_nothing(apart: Product, tmp_path: Path, change: Change) -> None:
    product = apart
    product.begin()
    binding = product.bind()
    product.succeeds(binding)
    product.cohort("purchrs", churn={"enter": 20, "exit": 10, "seed": 1})
    door = Door(product.db.settings, product.db.settings.data_dir)
    with (
        running_monitor(product.db.settings, tmp_path) as monitor,
        valkey_over_tcp() as primary,
        Redis.from_url(product.db.settings.redis) as queue,
    ):
        change(queue, primary)
        try:
            said = door("run", binding.name, "--fresh", "--json")
            assert (said.code, "BROKER_UNREACHABLE" in said.err) == (0, True)
            assert "BROKER_UNREACHABLE" in door("status").out
            wait_until(lambda: "BROKER_UNREACHABLE" in monitor.page().problems, seconds=20)
        finally:
            restore(queue)
        assert product.ended(said.json["id"], seconds=90).state == RunState.SUCCEEDED
        wait_until(lambda: "BROKER_UNREACHABLE" not in monitor.page().problems, seconds=20)
    product.equal("purchrs", "Purchasers")
    product.forget()
