"""The vendors of the contract tests: one sandbox for a test process, as new for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.settings import Settings
from models.database import Database
from tests.contract.product import Product, make_product
from tests.contract.sandboxed import Sandbox, running
from tests.support import Valkey


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[Sandbox]:
    with running(
        "--seed=1",
        "--members=600",
        "--switch=amplitude_job_seconds=0.02",
        "--switch=async_absent_seconds=0",
        "--switch=async_queue_seconds=0.01",
        "--switch=async_execute_seconds=0.01",
    ) as sandbox:
        yield sandbox
        assert sandbox.door("GET", "state")["crashes"] == []


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    """A sandbox as it is at its start."""
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture(scope="session")
def broker() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.close()


@pytest.fixture
def product_anywhere(settings: Settings, db: Database, broker: Valkey, sandbox: Sandbox) -> Iterator[Product]:
    """The same, on SQLite and on PostgreSQL."""
    made = make_product(settings, db, broker, sandbox)
    yield made
    made.close()


@pytest.fixture
def product(settings: Settings, sqlite_db: Database, broker: Valkey, sandbox: Sandbox) -> Iterator[Product]:
    """The product on servers of its own, its vendors the sandbox as it is at its start."""
    made = make_product(settings, sqlite_db, broker, sandbox)
    yield made
    made.close()
