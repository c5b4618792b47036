"""A copy of the SQLite database while everything runs, and the way back to it.

A database that is restored is older than the data extension. So everything that says what is there is in doubt
afterwards (`mark_in_doubt`): a binding's next run reads it, and a webhook's list is no longer known to be whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from config.settings import Settings
from models import audit, key_check, schema
from models.data_protection import erasure, forgotten
from models.database import Database
from models.database.errors import named_errors
from models.errors import ConfigurationError
from models.runs import lifecycle
from models.tables import CohortBinding, CohortList, SyncRun
from models.types import UNFINISHED, RunState

# A process that only opens the file to ask something is waited for this long.
BUSY_SECONDS = 2.0
_NO_DATABASE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def copy(db: Database, file: Path, *, now: datetime, actor: str) -> int:
    """Write what is stored at this moment to `file`, of mode 0600 and complete as soon as it is there; its bytes.

    One read transaction: whoever writes meanwhile is neither waited for nor kept waiting.
    """
    if db.dialect != "sqlite":
        raise ConfigurationError("BACKUP_POSTGRESQL", place=db.place, file=file, address=address(db))
    draft = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        with (
            named_errors(str(file)),
            closing(sqlite3.connect(db.place)) as source,
            closing(sqlite3.connect(draft)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, with no log beside it
        size = draft.stat().st_size
        _keep(draft, file)
    except OSError as error:
        raise ConfigurationError("FILE_UNWRITABLE", file=file, why=error.strerror or error) from None
    finally:
        draft.unlink(missing_ok=True)
    with db.write() as session:
        audit.record(
            session, now=now, actor=actor, action="backup", kind="database", name=str(file)[-100:], bytes=size
        )
    return size


def restore(settings: Settings, place: Path, file: Path, *, now: datetime, actor: str) -> int:
    """Put the copy `file` in the place of the database at `place`; how many bindings it has.

    It is made ready beside the database first, so that nothing is changed unless the copy is whole, of a known schema
    and readable with this key. STACK_RUNNING if a process still has the database open. Killed anywhere, the database
    is the old one or the restored one.
    """
    draft = place.with_name(f"restore-{os.getpid()}.db")
    try:
        _fetch(file, draft)
        theirs = Database(settings.model_copy(update={"database_url": f"sqlite:///{draft}"}))
        try:
            schema.upgrade(theirs)
            key_check.prove(theirs)
            with theirs.write() as session:
                bindings = mark_in_doubt(session, settings, now=now)
                since = forgotten.carry_over(session, theirs.keyring, _tombstones(settings, place))
                audit.record(
                    session, now=now, actor=actor, action="restore", kind="database", name=str(file)[-100:]
                )
            if since:
                erasure.remove_all(theirs, now=now)
        finally:
            theirs.dispose()
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        with named_errors(str(place)):
            _put(draft, place)
    finally:
        for ending in ("", "-wal", "-shm"):
            draft.with_name(draft.name + ending).unlink(missing_ok=True)
    return bindings


def mark_in_doubt(session: Session, settings: Settings, *, now: datetime) -> int:
    """Say in a restored database that the data extensions have moved on; how many bindings it has.

    Runs that were under way end: what they had planned was planned against another data extension.
    """
    quiet = now + timedelta(seconds=settings.uncertain_seconds)  # a later run may have jobs at the vendor
    session.execute(
        update(CohortBinding)
        .values(full_next=True, confirmed_digest=None, quiet_until=quiet)
        .execution_options(synchronize_session=False)
    )
    session.execute(update(CohortList).values(complete=False))
    under_way = or_(SyncRun.state.in_(UNFINISHED), SyncRun.state == RunState.DEFERRED)
    for run in session.scalars(select(SyncRun).where(under_way).order_by(SyncRun.id)):
        lifecycle.note_error(run, ConfigurationError("RESTORED"))
        lifecycle.finish(session, run, RunState.CANCELLED, now=now)
    return session.scalar(select(func.count()).select_from(CohortBinding)) or 0


def mark(db: Database, *, now: datetime, actor: str) -> int:
    """The same for a database that was restored by other means, as by pg_restore."""
    with db.write() as session:
        bindings = mark_in_doubt(session, db.settings, now=now)
        audit.record(session, now=now, actor=actor, action="restore", kind="database", name="in place")
    return bindings


def clear_files(data_dir: Path) -> None:
    """Remove the files of runs: they belong to the database that was replaced."""
    for name in ("snapshots", "work"):
        shutil.rmtree(data_dir / name, ignore_errors=True)


def _fetch(file: Path, draft: Path) -> None:
    """The copy, with its log if somebody has copied that too, as one sound file of mode 0600."""
    try:
        for ending in ("", "-wal"):
            source, target = Path(f"{file}{ending}"), draft.with_name(draft.name + ending)
            if not ending or source.exists():
                with source.open("rb") as read, open(target, "wb", opener=_private) as write:
                    shutil.copyfileobj(read, write, 1 << 20)
    except OSError as error:
        raise ConfigurationError("FILE_UNREADABLE", file=file, why=error.strerror or error) from None
    try:
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            wrong = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if wrong != "ok":
                raise ConfigurationError("BACKUP_INVALID", file=file, why="it is damaged")
            connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        why = "it is no SQLite database" if _code(error) in _NO_DATABASE else str(error)
        raise ConfigurationError("BACKUP_INVALID", file=file, why=why) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tombstones(settings: Settings, place: Path) -> forgotten.Kept:
    """Who was forgotten since the copy, as far as the database that is replaced can still tell."""
    if not place.exists():
        return forgotten.Kept()
    mine = Database(settings)
    try:
        schema.require_current(mine)
        with mine.read() as session:
            return forgotten.kept(session, mine.keyring)
    except Exception:  # noqa: BLE001 - it may be as broken as can be: that is what a restore is for
        return forgotten.Kept()
    finally:
        mine.dispose()


def _put(draft: Path, place: Path) -> None:
    """The draft's content into the database, in one transaction of SQLite; in its place where that is beyond use."""
    try:
        with closing(sqlite3.connect(place, timeout=BUSY_SECONDS)) as current:
            _require_alone(current, place)
            with closing(sqlite3.connect(draft)) as source:
                source.backup(current)
            return
    except sqlite3.DatabaseError as error:
        if _code(error) not in _NO_DATABASE:
            raise
    for ending in ("-wal", "-shm"):
        place.with_name(place.name + ending).unlink(missing_ok=True)
    _keep(draft, place)


def _require_alone(current: sqlite3.Connection, place: Path) -> None:
    """STACK_RUNNING while another connection is open: no other can leave the log behind."""
    try:
        current.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        if _code(error) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise
        raise ConfigurationError("STACK_RUNNING", place=place) from None


def _keep(draft: Path, file: Path) -> None:
    """The draft under the file's name, safe from a power cut."""
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def address(db: Database) -> str:
    """The database's URL as pg_dump takes it, without its password."""
    url = db.engine.url.set(drivername="postgresql")._replace(password=None)
    return url.difference_update_query(["prepare_threshold"]).render_as_string(hide_password=False)


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
