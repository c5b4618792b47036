"""Fixtures of a running product, for acceptance and fault tests: started once a session, as new for every test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.contract.sandboxed import Sandbox, running
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


@pytest.fixture(scope="session")
def on_sqlite(vendors: Sandbox, short_path: Path) -> Iterator[Product]:
    """SQLite and the embedded Valkey on a unix socket, one worker with a single slot."""
    directory = short_path / "sqlite"
    directory.mkdir()
    settings = settings_for(vendors, directory, worker_concurrency=1)
    with running_product(vendors, settings, directory) as product:
        yield product


@pytest.fixture(scope="session")
def on_postgresql(
    vendors: Sandbox, short_path: Path, postgres_url: str, postgres_template: str
) -> Iterator[Product]:
    """PostgreSQL and a Valkey over TCP, two worker processes."""
    directory = short_path / "postgresql"
    directory.mkdir()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE product TEMPLATE {postgres_template}")
    with valkey_over_tcp() as redis_url:
        settings = settings_for(
            vendors,
            directory,
            database_url=postgres_url.replace("/postgres?", "/product?"),
            redis_url=redis_url,
            worker_concurrency=1,
        )
        with running_product(vendors, settings, directory, workers=2) as product:
            yield product


@pytest.fixture(params=["sqlite", "postgresql"])
def product(request: pytest.FixtureRequest) -> Iterator[Product]:
    """The product on each of the two; no test sees another's rows."""
    found: Product = request.getfixturevalue(f"on_{request.param}")
    found.begin()
    yield found
    found.forget()


@pytest.fixture(params=["sqlite"])  # so that a test's name says where it runs: see tests/lanes.py
def embedded(on_sqlite: Product) -> Iterator[Product]:
    """The product on SQLite alone, for what does not depend on the database."""
    on_sqlite.begin()
    yield on_sqlite
    on_sqlite.forget()


@pytest.fixture(params=["postgresql"])
def two_workers(on_postgresql: Product) -> Iterator[Product]:
    """The product on PostgreSQL alone, where two worker processes share everything."""
    on_postgresql.begin()
    yield on_postgresql
    on_postgresql.forget()
