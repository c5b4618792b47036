"""Room on disk: what was removed goes back to the file system, and the log of SQLite does not stay large."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from sqlalchemy import delete, text

from models.database import Database
from models.database.engine import SQLITE_LOG_BYTES
from models.membership import snapshots
from models.tables import CohortBinding, Snapshot, SnapshotPart
from tests.factories import make_binding, make_destination, make_source

MEGABYTES = 20 << 20


def filled(db: Database) -> CohortBinding:
    make_source(db)
    make_destination(db)
    binding = make_binding(db)
    with db.write() as session:
        mine = session.get_one(CohortBinding, binding.id)
        snapshots.store_upload(session, mine, BytesIO(b"user_id\n" + b"a" * MEGABYTES), now=datetime.now(UTC))
    with db.write() as session:
        session.execute(delete(SnapshotPart))
        session.execute(delete(Snapshot))
    return binding


def test_compacting_gives_room_back(db: Database) -> None:
    binding = filled(db)
    before = db.size()
    db.compact()
    assert db.size() < before - MEGABYTES / 2 or db.dialect == "postgresql"
    with db.read() as session:
        assert session.get_one(CohortBinding, binding.id).name == binding.name


def test_while_another_reads_it_works_too(sqlite_db: Database) -> None:
    filled(sqlite_db)
    other = Database(sqlite_db.settings)
    with other.read() as session:
        session.scalar(text("SELECT count(*) FROM cohort_binding"))
    sqlite_db.compact()
    assert sqlite_db.size() < MEGABYTES / 2
    other.dispose()


def test_the_log_is_cut_after_a_large_transaction(sqlite_db: Database) -> None:
    with sqlite_db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_size_limit").scalar() == SQLITE_LOG_BYTES
    assert Path(sqlite_db.place).exists()
