"""The connection to the database, the same on SQLite and PostgreSQL.

`read()` gives a session for looking, which sees one state if it asks for that (`one_state`); `write()` one transaction
that commits at its end. Nothing here knows a table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from config.settings import Settings
from models.database.deadlines import bound, bound_use
from models.database.engine import SQLITE_BUSY_SECONDS, SQLITE_LOG_BYTES, SQLITE_PAGE_BYTES, make_engine
from models.database.errors import named_errors
from models.errors import TransientError
from models.secrets import Keyring

FROZEN_MS = 30_000
LOCK_MS = 10_000


class Database:
    """An engine and the ring of keys for the secrets in it. One a process: it must not cross a fork."""

    def __init__(
        self,
        settings: Settings,
        *,
        patience: float | None = None,
        deadline: float | None = None,
        prompt: bool = False,
    ) -> None:
        """With `patience` nothing waits longer than so many seconds for an answer, and no connection is kept.

        With `deadline` no transaction takes longer than so many seconds, and connections are kept. `prompt`: somebody
        waits for each commit, so on SQLite the writing back of what others have stored is left to them.
        """
        self.settings = settings
        self.keyring = Keyring.load(settings)
        self.engine = make_engine(settings, patience, deadline)
        if prompt and self.dialect == "sqlite":
            pages = SQLITE_LOG_BYTES // SQLITE_PAGE_BYTES
            event.listen(
                self.engine, "connect", lambda line, _: line.execute(f"PRAGMA wal_autocheckpoint={pages}")
            )
        if patience is not None:
            bound(self.engine, patience)
        if deadline is not None:
            bound_use(self.engine, deadline)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    @property
    def place(self) -> str:
        """Where it is: the file, or the server and the database."""
        url = self.engine.url
        return url.database or "" if self.dialect == "sqlite" else f"{url.host or 'localhost'}/{url.database}"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking only: what it flushes is rolled back. What was loaded may be read afterwards."""
        with (
            named_errors(self.place),
            Session(self.engine, expire_on_commit=False, autoflush=False) as session,
        ):
            yield session  # closing rolls back; `rollback()` would also forget what the rows held

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction. On SQLite it takes the write lock at once, so that it can't fail half-way for it."""
        with named_errors(self.place), Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"cohort_sync_write": True})
            yield session
            session.commit()

    @contextmanager
    def edit(self) -> Iterator[Session]:
        """A write by a person who changes what is set up: one at a time, so that no two become a mixture."""
        with self.write() as session:
            lock(session, "what is set up")
            yield session

    def require_writable(self) -> None:
        """DATABASE_READ_ONLY if this server takes no writes, as one that was demoted in a failover."""
        if self.dialect != "postgresql":
            return
        with self.read() as session:
            if session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
                session.connection().invalidate()
                self.engine.dispose()
                raise TransientError("DATABASE_READ_ONLY", place=self.place)

    def size(self) -> int:
        """Bytes on disk: SQLite's file with its log, or what PostgreSQL tells of the database."""
        if self.dialect == "sqlite":
            files = [Path(self.place + ending) for ending in ("", "-wal")]
            return sum(file.stat().st_size for file in files if file.exists())
        with self.read() as session:
            return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)

    def compact(self) -> None:
        """Give the pages of what was removed back to the file system.

        On SQLite writers wait meanwhile, for a second or so a gigabyte, and as much room again is needed; on PostgreSQL
        nobody waits, and the room is kept for what comes.
        """
        if self.dialect == "sqlite":
            with (
                named_errors(self.place),
                closing(sqlite3.connect(self.place, timeout=SQLITE_BUSY_SECONDS)) as file,
            ):
                file.execute("VACUUM")
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        with named_errors(self.place), self.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM (ANALYZE)"))

    def dispose(self) -> None:
        """Close what is open."""
        self.engine.dispose()


def lock(session: Session, *names: str, shared: bool = False) -> None:
    """Let one transaction at a time past this point, per name. On SQLite `write()` holds the one lock already.

    `shared`: any number of those, and nobody else. Several names are locked in their order.
    """
    if session.get_bind().dialect.name == "postgresql":
        kind = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        locks = ", ".join(f"{kind}(hashtextextended(:name{n}, 0))" for n in range(len(names)))
        session.execute(text(f"SELECT {locks}"), {f"name{n}": name for n, name in enumerate(names)})


def one_state(session: Session) -> None:
    """From here on a session that has asked nothing yet sees one state, also on PostgreSQL."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def bound_locks(session: Session) -> None:
    """Let nobody wait long for the row locks of this transaction, nor it for theirs.

    A process that is frozen in the middle of one (SIGSTOP, a paused virtual machine) would keep its rows from all
    the others: PostgreSQL ends such a transaction. SQLite has no such bound.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            text(
                "SELECT set_config('idle_in_transaction_session_timeout', :frozen, true),"
                " set_config('lock_timeout', :lock, true)"
            ),
            {"frozen": str(FROZEN_MS), "lock": str(LOCK_MS)},
        )
