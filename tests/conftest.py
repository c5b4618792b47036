"""Fixtures of the whole suite: real databases, a real broker. Nothing is simulated but time.

`db` runs a test on SQLite and on PostgreSQL; `sqlite_db` and `postgres_db` on one of them. Each test has a
database of its own with the schema in place, copied from a template. `tests/factories.py` fills it,
`tests/support.py` starts processes.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Dialect, event

from config.settings import Settings
from models import schema
from models.database import Database
from models.tables import Base
from tests.support import Valkey, postgres_server

# The running products: one of each for the whole session, whoever asks; and what runs beside what.
pytest_plugins = ["tests.lanes", "tests.products"]

# The PostgreSQL database that one test after another has: to empty it takes 2 ms, to make one 70.
_KEPT = "kept"

_dialects: dict[str, Dialect] = {}
_compiled: dict[Any, Any] = {}

# A job in the background of a script has its Ctrl-C ignored, and so has everything it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, so that a change is judged by itself; `--hypothesis-profile=default` looks for new ones.
# Nothing is judged by how long it takes here: others may have the processor.
hypothesis_settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("steady")


# What is there when the tests have been collected stays: no collection looks at it again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that nothing outside the test can change, with a data directory of their own."""
    for name in [name for name in os.environ if name.startswith("COHORT_SYNC_")]:
        monkeypatch.delenv(name)
    return Settings(_env_file=None, data_dir=tmp_path / "data")


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> Database:
    """An empty, current database: the test runs once on each dialect."""
    name = "sqlite_db" if request.param == "sqlite" else "postgres_db"
    database: Database = request.getfixturevalue(name)
    return database


@pytest.fixture
def sqlite_db(settings: Settings, sqlite_template: Path) -> Iterator[Database]:
    """An empty, current SQLite database in the data directory."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    shutil.copy(sqlite_template, settings.data_dir / "cohort-sync.db")
    database = _opened(settings)
    # As with PostgreSQL below. The processes of a stack write as an operator's do.
    event.listen(
        database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF")
    )
    yield database
    database.dispose()


@pytest.fixture
def postgres_db(settings: Settings, postgres_template: str, postgres_url: str) -> Iterator[Database]:
    """An empty, current PostgreSQL database: the session's, emptied, or a new one where that is not possible."""
    url = _named(postgres_url, _KEPT)
    if not _emptied(url):
        _administer(postgres_url, f"DROP DATABASE IF EXISTS {_KEPT} WITH (FORCE)")
        _administer(postgres_url, f"CREATE DATABASE {_KEPT} TEMPLATE {postgres_template}")
    database = _opened(settings.model_copy(update={"database_url": url}))
    yield database
    database.dispose()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A broker of its own, which the test may kill and start again."""
    server = Valkey()
    server.start()
    yield server
    server.close()


@pytest.fixture
def stack(db: Database, valkey: Valkey) -> Settings:
    """The settings of a process on this test's database and broker."""
    return db.settings.model_copy(update={"redis_url": valkey.url})


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for the session, on a unix socket; run as root it works as a user of its own."""
    with postgres_server() as url:
        for setting in (
            "fsync = off",
            "full_page_writes = off",
        ):  # a test's data need not survive a power cut
            _administer(url, f"ALTER SYSTEM SET {setting}")
        _administer(url, "SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an upgraded database to copy."""
    name = "upgraded"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    _upgraded(tmp_path_factory.mktemp("template"), _named(postgres_url, name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an upgraded database to copy."""
    directory = tmp_path_factory.mktemp("template")
    _upgraded(directory, "")
    return directory / "cohort-sync.db"


def _opened(settings: Settings) -> Database:
    """A database for which the statements of the tests before are compiled: it was a sixth of what a test did.

    SQLAlchemy keeps what it compiled by dialect, and each engine makes a dialect of its own.
    """
    database = Database(settings)
    engine = database.engine
    if engine.dialect.name not in _dialects:
        with engine.connect():  # the dialect asks the server what it can
            _dialects[engine.dialect.name] = engine.dialect
    engine.dialect = _dialects[engine.dialect.name]
    engine.update_execution_options(compiled_cache=_compiled)
    return database


def _upgraded(data_dir: Path, url: str) -> None:
    database = Database(Settings(_env_file=None, data_dir=data_dir, database_url=url, redis_url=""))
    schema.upgrade(database)
    database.dispose()


def _emptied(url: str) -> bool:
    """Whether the database is as new: it was there, and a test has left its schema as it was."""
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute(
                ";".join(f"DELETE FROM {t.name}" for t in reversed(Base.metadata.sorted_tables))
            )
            connection.execute("SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'")
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except psycopg.Error:
        return False
    return found == [(schema.head(),)]


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _named(url: str, database: str) -> str:
    return url.replace("/postgres?", f"/{database}?")
