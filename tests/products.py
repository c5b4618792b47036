"""Fixtures of a running product, for acceptance and fault tests: started once a session, as new for every test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.contract.sandboxed import Sandbox, running
from tests.lanes import shares
from tests.product import Product, running_product, settings_for, valkey_over_tcp


@pytest.fixture(scope="session")
def vendors() -> Iterator[Sandbox]:
    """Both vendors, one process for the session."""
    with running("--seed=3", "--members=600") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    directory = Path(tempfile.mkdtemp(prefix="cs-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class Products:
    """What runs, from the first test that wants it to the first that has no use for any."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._running: dict[str, Product] = {}
        self._open = ExitStack()

    def on(self, database: str) -> Product:
        if database not in self._running:
            start = {"sqlite": _on_sqlite, "postgresql": _on_postgresql}[database]
            self._running[database] = self._open.enter_context(start(self._request.getfixturevalue))
            self._request.session.addfinalizer(self.close)  # before the servers that it was started on
        return self._running[database]

    def close(self) -> None:
        self._running.clear()
        self._open.close()


@contextmanager
def _on_sqlite(of_session: Callable[[str], Any]) -> Iterator[Product]:
    """SQLite and the embedded Valkey on a unix socket, one worker with a single slot."""
    vendors, directory = of_session("vendors"), of_session("short_path") / "sqlite"
    directory.mkdir(exist_ok=True)
    settings = settings_for(vendors, directory, worker_concurrency=1)
    with running_product(vendors, settings, directory) as product:
        yield product


@contextmanager
def _on_postgresql(of_session: Callable[[str], Any]) -> Iterator[Product]:
    """PostgreSQL and a Valkey over TCP, two worker processes."""
    vendors, directory = of_session("vendors"), of_session("short_path") / "postgresql"
    directory.mkdir(exist_ok=True)
    server, template = of_session("postgres_url"), of_session("postgres_template")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS product WITH (FORCE)")
        connection.execute(f"CREATE DATABASE product TEMPLATE {template}")
    with valkey_over_tcp() as redis_url:
        settings = settings_for(
            vendors,
            directory,
            database_url=server.replace("/postgres?", "/product?"),
            redis_url=redis_url,
            worker_concurrency=1,
        )
        with running_product(vendors, settings, directory, workers=2) as product:
            yield product


_made: list[Products] = []


@pytest.fixture(scope="session")
def products(request: pytest.FixtureRequest) -> Products:
    _made.append(Products(request))
    return _made[-1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """An idle product takes a twentieth of a core: it ends when a file begins that has no use for it."""
    if not shares(item.nodeid.partition("::")[0]):
        for one in _made:
            one.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def product(request: pytest.FixtureRequest, products: Products) -> Iterator[Product]:
    """The product on each of the two; no test sees another's rows."""
    yield from _as_new(products.on(request.param))


@pytest.fixture
def embedded(products: Products) -> Iterator[Product]:
    """The product on SQLite alone, for what does not depend on the database."""
    yield from _as_new(products.on("sqlite"))


@pytest.fixture(params=["postgresql"])  # a test's name says where it runs: see tests/lanes.py
def two_workers(request: pytest.FixtureRequest, products: Products) -> Iterator[Product]:
    """The product on PostgreSQL alone, where two worker processes share everything."""
    yield from _as_new(products.on(request.param))


def _as_new(product: Product) -> Iterator[Product]:
    product.begin()
    yield product
    product.forget()
