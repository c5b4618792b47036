"""What `backup` and `restore` refuse, what they leave as it is, and who stays forgotten."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, text

from models.contact_keys.codec import encode_keys
from models.data_protection import forgotten
from models.database import Database
from models.membership import webhooks
from models.membership.webhooks import Column, MessageHead
from models.runs import lifecycle
from models.tables import AuditEvent, CohortBinding, CohortList, SyncRun
from models.types import Feed, RunState, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def filled(sqlite_db: Database) -> Database:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, "vips")
    return sqlite_db


@pytest.fixture
def door(filled: Database, tmp_path: Path) -> Door:
    return Door(filled.settings, tmp_path)


def names(db: Database) -> list[str]:
    with db.read() as session:
        found = list(session.scalars(select(CohortBinding.name).order_by(CohortBinding.id)))
    db.dispose()
    return found


def refused(door: Door, db: Database, file: Path, code: str, **env: str) -> None:
    """The database is as it was, to the byte, and no draft lies about."""
    db.dispose()
    before = Path(db.place).read_bytes()
    said = door("restore", str(file), "--yes", "--json", **env)
    assert (said.code, said.error) == (2, code), said.out + said.err
    assert Path(db.place).read_bytes() == before
    assert not [one.name for one in db.settings.data_dir.iterdir() if one.name.startswith("restore-")]


def test_there_and_back(door: Door, filled: Database, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    assert door.ok("backup", "copy.db", "--json").json["bytes"] == file.stat().st_size
    make_binding(filled, "later")
    assert names(filled) == ["vips", "later"]
    door.ok("restore", "copy.db", "--yes")
    assert names(filled) == ["vips"]
    with filled.read() as session:
        events = [event.action for event in session.scalars(select(AuditEvent).order_by(AuditEvent.id))]
    assert events[-1] == "restore"
    assert Path(filled.place).stat().st_mode & 0o777 == 0o600


def test_a_running_process_keeps_it_from_being_replaced(door: Door, filled: Database) -> None:
    """Also one that no stack started: a worker or a scheduler alone."""
    door.ok("backup", "copy.db")
    make_binding(filled, "later")
    with filled.read() as session:  # an open connection is enough
        session.execute(text("SELECT 1")).all()
        said = door("restore", "copy.db", "--yes", "--json")
        assert (said.code, said.error) == (2, "STACK_RUNNING")
    assert names(filled) == ["vips", "later"]


def test_what_is_no_copy_is_refused(door: Door, filled: Database, tmp_path: Path) -> None:
    junk, other, cut = tmp_path / "junk", tmp_path / "other.db", tmp_path / "cut.db"
    junk.write_text("no database at all" * 100)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE something (x)")
    door.ok("backup", "copy.db")
    whole = (tmp_path / "copy.db").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    for file in (junk, other, cut, Path(filled.place)):
        refused(door, filled, file, "BACKUP_INVALID")
    refused(door, filled, tmp_path / "none.db", "FILE_UNREADABLE")


def test_of_a_newer_schema_or_under_another_key_it_is_refused(
    door: Door, filled: Database, tmp_path: Path
) -> None:
    door.ok("backup", "copy.db")
    key = Fernet.generate_key().decode()
    refused(door, filled, tmp_path / "copy.db", "SECRET_KEY_WRONG", COHORT_SYNC_SECRET_KEY=key)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE schema_floor SET oldest = '9999'")
        connection.commit()
    refused(door, filled, tmp_path / "copy.db", "DATABASE_NEWER")


def test_a_damaged_or_missing_database_is_replaced(door: Door, filled: Database) -> None:
    door.ok("backup", "copy.db")
    filled.dispose()
    for damage in (lambda place: place.write_bytes(b"x" * 8192), Path.unlink):
        damage(Path(filled.place))
        door.ok("restore", "copy.db", "--yes")
        assert names(filled) == ["vips"]


def test_a_file_that_was_copied_with_its_log_is_taken(door: Door, filled: Database, tmp_path: Path) -> None:
    with filled.read() as session:
        session.execute(text("SELECT 1")).all()
        make_binding(filled, "later")  # in the log
        for ending in ("", "-wal"):
            shutil.copy(filled.place + ending, tmp_path / f"raw.db{ending}")
    shutil.copy(tmp_path / "raw.db", tmp_path / "alone.db")
    filled.dispose()
    door.ok("restore", "alone.db", "--yes")
    assert "later" not in names(filled), "copying the file alone loses the log, as the documentation says"
    door.ok("restore", "raw.db", "--yes")
    assert names(filled) == ["vips", "later"]


def test_an_existing_file_is_not_overwritten_unasked(door: Door, filled: Database, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("precious")
    assert door("backup", "copy.db", "--json").error == "UNCONFIRMED"
    assert door("backup", filled.place, "--yes", "--json").error == "FILE_UNWRITABLE"
    assert door("backup", "no/such/folder/copy.db", "--json").error == "FILE_UNWRITABLE"
    assert (tmp_path / "copy.db").read_text() == "precious"
    door.ok("backup", "copy.db", "--yes")
    assert (tmp_path / "copy.db").read_bytes().startswith(b"SQLite format 3")


def test_postgresql_is_told_what_to_run(postgres_db: Database, tmp_path: Path) -> None:
    door = Door(postgres_db.settings, tmp_path)
    said = door("backup", "copy.dump", "--json")
    assert said.error == "BACKUP_POSTGRESQL"
    assert "pg_dump --format=custom --file copy.dump 'postgresql://" in said.json["error"]["remedy"]
    said = door("restore", "copy.dump", "--yes", "--json")
    assert said.error == "RESTORE_POSTGRESQL"
    assert "pg_restore" in said.json["error"]["remedy"]
    assert "--in-place" in said.json["error"]["remedy"]


def test_what_was_restored_by_other_means_is_marked(db: Database, tmp_path: Path) -> None:
    """A webhook's list lacks what came since the copy, and Amplitude tells it only once."""
    make_source(db)
    make_destination(db)
    told = make_binding(db, feed=Feed.WEBHOOK)
    other = make_binding(db)
    with db.write() as session:
        head = MessageHead(told.cohort_id, "m-1", in_cohort=True, computed_time=1)
        webhooks.accept(session, told.project_id, head, {"user_id": Column(0, 0, encode_keys([]))}, now=NOW)
        mine = session.get_one(CohortBinding, other.id)
        mine.confirmed_digest = "x"
        given = {"scheduled_for": NOW, "now": NOW, "actor": "test"}
        begun = lifecycle.dispatch(session, mine, trigger=Trigger.MANUAL, **given).id
        given["scheduled_for"] = NOW.replace(hour=1)
        waits = lifecycle.dispatch(session, mine, trigger=Trigger.MANUAL, queue=True, **given).id
    db.dispose()
    said = Door(db.settings, tmp_path).ok("restore", "--in-place", "--yes", "--json")
    assert said.json["bindings"] == 2
    with db.read() as session:
        for binding in session.scalars(select(CohortBinding)):
            assert binding.full_next
            assert binding.confirmed_digest is None
            assert binding.quiet_until is not None
        assert [one.complete for one in session.scalars(select(CohortList))] == [False]
        ended = [session.get_one(SyncRun, one) for one in (begun, waits)]
    assert {(run.state, run.error_code) for run in ended} == {(RunState.CANCELLED, "RESTORED")}


def test_who_was_forgotten_since_the_copy_stays_forgotten(door: Door, filled: Database) -> None:
    door.ok("backup", "copy.db")
    with filled.write() as session:
        forgotten.add(session, filled.keyring, "Ann@Example.com", leaving=False, now=NOW, actor="test")
    filled.dispose()
    door.ok("restore", "copy.db", "--yes")
    with filled.read() as session:
        now = forgotten.load(session, filled.keyring)
    assert "ann@example.com " in now
    assert "bob@example.com" not in now
