"""PostgreSQL as production has it: a standby that is promoted, and a pooler between."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from config.settings import Settings
from models.database import Database
from models.errors import ConfigurationError, TransientError
from models.naming import every
from models.tables import AmplitudeProject
from models.types import RunState
from tests.contract.sandboxed import Sandbox
from tests.factories import make_source
from tests.product import Product, running_product, settings_for, valkey_over_tcp
from tests.standby import OWNER, execute, folder_of, has_followed, promote, rows, standby_of, unprivileged
from tests.support import postgres_server, wait_until

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
# --- a failover


@contextmanager
def primary_and_standby() -> Iterator[tuple[str, str]]:
    """The URLs of a server and of one that follows it."""
    with postgres_server() as primary, standby_of(primary) as standby:
        yield primary, standby


def test_a_failover_costs_one_error_and_nothing_is_written_to_the_old_server(settings: Settings) -> None:
    with primary_and_standby() as (primary, standby), tempfile.TemporaryDirectory(prefix="cs-") as directory:
        address = Path(directory) / "pg"  # what clients connect to: the address that moves in a failover
        address.symlink_to(folder_of(primary))
        moving = primary.replace(str(folder_of(primary)), str(address))
        db = Database(settings.model_copy(update={"database_url": moving}))
        from models import schema

        schema.upgrade(db)
        make_source(db, "before")
        with ThreadPoolExecutor(4) as pool:  # several sessions, which the pool keeps
            list(pool.map(lambda _: _pause(db), range(4)))

        has_followed(primary)
        execute(primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        promote(standby)
        address.unlink()
        address.symlink_to(folder_of(standby))

        # Until a write finds out, the kept sessions answer: a scheduler must not show life with them.
        wait_until(lambda: _refused(db.require_writable), seconds=10)
        db.require_writable()
        make_source(db, "after")
        with db.read() as session:
            assert [row.name for row in every(session, AmplitudeProject)] == ["after", "before"]
        assert not rows(primary, "SELECT 1 FROM amplitude_project WHERE name = 'after'")
        db.dispose()


def test_a_write_that_meets_a_demoted_server_is_tried_on_the_new_one(settings: Settings) -> None:
    with postgres_server() as url:
        db = Database(settings.model_copy(update={"database_url": url}))
        with db.write() as session:
            session.execute(text("CREATE TABLE kept (n int)"))
        with db.read() as session:
            session.connection().exec_driver_sql("SET SESSION default_transaction_read_only = on")
            session.connection().exec_driver_sql("COMMIT")
        codes = []
        for n in range(3):
            try:
                with db.write() as session:
                    session.execute(text("INSERT INTO kept VALUES (:n)"), {"n": n})
            except TransientError as error:
                codes.append(error.code)
        assert codes == ["DATABASE_READ_ONLY"]
        assert len(rows(url, "SELECT n FROM kept")) == 2
        db.dispose()


def _pause(db: Database) -> None:
    with db.read() as session:
        session.scalar(select(func.count()).select_from(AmplitudeProject))
        time.sleep(0.2)


def _refused(call: Any) -> bool:
    try:
        call()
    except TransientError as error:
        return error.code == "DATABASE_READ_ONLY"
    return False


# --- a pooler


@contextmanager
def pooled(url: str, directory: Path) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode before the server: three connections for everybody."""
    socket = directory / "bouncer"
    socket.mkdir()
    config = socket / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={folder_of(url)} user=postgres\n[pgbouncer]\nlisten_addr =\n"
        f"unix_socket_dir = {socket}\nlisten_port = 6432\nauth_type = any\npool_mode = transaction\n"
        "default_pool_size = 3\nmax_client_conn = 200\n"
    )
    if os.geteuid() == 0:
        for path in (directory, socket, config):
            shutil.chown(path, OWNER)
    assert PGBOUNCER is not None
    with subprocess.Popen(
        [PGBOUNCER, str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **unprivileged()
    ) as process:
        try:
            wait_until((socket / ".s.PGSQL.6432").exists, seconds=10)
            yield f"postgresql://postgres@/{url.partition('?')[0].rpartition('/')[2]}?host={socket}&port=6432"
        finally:
            process.terminate()


needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@needs_pgbouncer
def test_transactions_of_many_clients_share_the_sessions_of_a_pooler(
    settings: Settings, postgres_db: Database
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cs-") as folder,
        pooled(postgres_db.settings.database, Path(folder)) as url,
    ):
        dbs = [Database(settings.model_copy(update={"database_url": url})) for _ in range(4)]

        def work(n: int) -> list[Any]:
            found = []
            for _ in range(30):
                with dbs[n % 4].write() as session:
                    found.append(session.scalar(text("SELECT CAST(:a AS int) + 1"), {"a": n}))
                    session.scalar(select(AmplitudeProject.id).where(AmplitudeProject.name == f"n{n}"))
            return found

        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(work, range(12))) == [[n + 1] * 30 for n in range(12)]
        for db in dbs:
            db.dispose()


@needs_pgbouncer
def test_a_whole_sync_through_a_pooler(vendors: Sandbox, postgres_url: str, postgres_template: str) -> None:
    execute(postgres_url, f"CREATE DATABASE pooled TEMPLATE {postgres_template}")
    with tempfile.TemporaryDirectory(prefix="cs-") as folder, valkey_over_tcp() as redis_url:
        directory = Path(folder)
        with pooled(postgres_url.replace("/postgres?", "/pooled?"), directory) as url:
            home = directory / "home"
            home.mkdir()
            settings = settings_for(vendors, home, database_url=url, redis_url=redis_url)
            with running_product(vendors, settings, home, workers=2) as product:
                _syncs(product)


def _syncs(product: Product) -> None:
    product.begin()
    pair = [product.bind(), product.bind("churnrk", "Churn Risk")]
    for _ in range(2):
        for run_id in [product.start(binding) for binding in pair]:
            assert product.ended(run_id).state == RunState.SUCCEEDED
        product.equal("purchrs", "Purchasers")
        product.equal("churnrk", "Churn Risk")
        product.cohort("purchrs", churn={"exit": 50, "enter": 20, "seed": 1})
    product.forget()


@pytest.mark.parametrize("given", ["0", "5"])
def test_prepared_statements_may_be_asked_for(settings: Settings, postgres_db: Database, given: str) -> None:
    url = f"{postgres_db.settings.database}&prepare_threshold={given}"
    db = Database(settings.model_copy(update={"database_url": url}))
    with db.read() as session:
        assert session.scalar(text("SELECT 1")) == 1
    db.dispose()


def test_a_threshold_that_is_no_number_is_refused(settings: Settings) -> None:
    url = "postgresql://localhost/x?prepare_threshold=often"
    with pytest.raises(ConfigurationError, match="SETTING_INVALID"):
        Database(settings.model_copy(update={"database_url": url}))
