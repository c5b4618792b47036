"""A database that can't be used says why, where it is, and what to do; and nobody else may read it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from config.settings import Settings
from models import schema
from models.database import Database, engine
from models.errors import ConfigurationError, SyncError, TransientError
from tests.factories import make_source
from tests.integration.door import Door


@pytest.fixture
def door(sqlite_db: Database, tmp_path: Path) -> Door:
    return Door(sqlite_db.settings, tmp_path)


def file_of(db: Database) -> Path:
    return db.settings.data_dir / "cohort-sync.db"


@pytest.mark.parametrize("content", [b"no database at all " * 100, None])
def test_a_damaged_file(door: Door, sqlite_db: Database, content: bytes | None) -> None:
    file = file_of(sqlite_db)
    if content is None:  # a page in the middle is another's
        content = bytearray(file.read_bytes())
        content[4096 : 4096 * 40] = b"\xff" * 4096 * 39
    file.write_bytes(content)
    said = door("runs", "--json")
    assert (said.code, said.error) == (1, "DATABASE_DAMAGED")
    assert str(file) in said.json["error"]["message"]
    assert "backup" in said.json["error"]["remedy"]


def test_a_file_that_cant_be_opened(door: Door, sqlite_db: Database) -> None:
    file = file_of(sqlite_db)
    file.unlink()
    file.mkdir()
    said = door("status", "--json")
    assert (said.code, said.error) == (1, "DATABASE_NO_FILE")
    assert str(file) in said.json["error"]["message"]


@pytest.mark.parametrize(
    ("pragma", "code"), [("query_only = 1", "DATABASE_READ_ONLY"), ("max_page_count = 1", "DATABASE_FULL")]
)
def test_a_file_that_takes_no_more(sqlite_db: Database, pragma: str, code: str) -> None:
    @event.listens_for(sqlite_db.engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA {pragma}")

    sqlite_db.dispose()  # connections that were made before

    def fill() -> None:  # until the pages there are full
        for number in range(500):
            make_source(sqlite_db, f"source {number}")

    with pytest.raises(TransientError) as caught:
        fill()
    assert caught.value.code == code
    assert str(file_of(sqlite_db)) in caught.value.message


def test_a_writer_is_waited_for_as_long_as_was_said(sqlite_db: Database) -> None:
    """And a connection that has waited in vain waits as long for everything else afterwards."""
    other = Database(sqlite_db.settings, deadline=0.3)
    began = time.monotonic()
    with sqlite_db.write(), pytest.raises(TransientError, match="DATABASE_BUSY"), other.write():
        pass
    assert 0.3 <= time.monotonic() - began < 3
    with other.write() as session:
        assert session.scalar(text("PRAGMA busy_timeout")) == 300
    other.dispose()


def test_who_waits_for_a_writer_looks_often(sqlite_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions one right after the other leave moments of some milliseconds: none is missed for long."""
    looks: list[float] = []
    real = engine.time.monotonic
    monkeypatch.setattr(engine.time, "monotonic", lambda: looks.append(real()) or looks[-1])
    other = Database(sqlite_db.settings, deadline=0.5)
    with sqlite_db.write(), pytest.raises(TransientError), other.write():
        pass
    other.dispose()
    assert len(looks) > 10


def test_a_server_that_takes_no_writes(postgres_db: Database) -> None:
    def write() -> None:
        with postgres_db.write() as session:
            session.connection().exec_driver_sql("SET TRANSACTION READ ONLY")
            session.connection().exec_driver_sql("DELETE FROM sync_run")

    with pytest.raises(SyncError) as caught:
        write()
    assert caught.value.code == "DATABASE_READ_ONLY"


def test_a_statement_that_is_wrong_is_no_silence(db: Database) -> None:
    with pytest.raises(DBAPIError), db.read() as session:
        session.execute(text("SELECT nothing_like_it FROM sync_run"))


def test_who_must_yield_to_another_is_told_so(postgres_db: Database) -> None:
    """Each of two has what the other wants: PostgreSQL ends one of them after a second."""
    one, other = make_source(postgres_db, "one").id, make_source(postgres_db, "other").id
    both = Barrier(2)
    said: list[str] = []

    def take(first: int, second: int) -> None:
        change = text("UPDATE amplitude_project SET name = name WHERE id = :id")
        try:
            with postgres_db.write() as session:
                session.execute(change, {"id": first})
                both.wait(10)
                session.execute(change, {"id": second})
        except TransientError as error:
            said.append(error.code)

    threads = [Thread(target=take, args=ids) for ids in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert said == ["DATABASE_BUSY"]


@pytest.mark.parametrize("floor", ["UPDATE schema_floor SET oldest = '9999'", "DELETE FROM schema_floor"])
def test_a_newer_schema_is_no_reason_to_upgrade(db: Database, tmp_path: Path, floor: str) -> None:
    with db.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        session.connection().exec_driver_sql(floor)
    with pytest.raises(ConfigurationError, match="DATABASE_NEWER"):
        schema.require_current(db)
    door = Door(db.settings, tmp_path)
    for words in (["runs", "--json"], ["db", "upgrade", "--json"]):
        said = door(*words)
        assert (said.code, said.error) == (2, "DATABASE_NEWER")
        assert "db upgrade" not in said.out


def test_a_newer_schema_that_only_has_more_is_worked_with(db: Database, tmp_path: Path) -> None:
    """As after going back to the release before: what is newer has only added to the schema."""
    schema.upgrade(db)
    with db.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    door = Door(db.settings, tmp_path)
    door.ok("runs", "--json")
    door.ok("db", "upgrade", "--json")
    with db.read() as session:
        version = session.scalar(text("SELECT version_num FROM alembic_version"))
        assert (version, session.scalar(text("SELECT oldest FROM schema_floor"))) == ("9999", schema.FLOOR)


def test_nobody_else_may_read_what_is_stored(
    settings: Settings, sqlite_template: Path, tmp_path: Path
) -> None:
    settings.data_dir.mkdir(mode=0o755)
    file = settings.data_dir / "cohort-sync.db"
    shutil.copy(sqlite_template, file)
    file.chmod(0o644)
    db = Database(settings)
    make_source(db)
    Door(settings, tmp_path).ok("status")
    assert (settings.data_dir / "cohort-sync.db-wal").exists()
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in settings.data_dir.iterdir()}
    db.dispose()
    assert set(modes.values()) == {"0o600"}, modes
