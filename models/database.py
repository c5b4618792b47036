"""The connection to the database, the same on SQLite and PostgreSQL.

`read()` gives a session for looking, which sees one state if it asks for that (`one_state`); `write()` one transaction
that commits at its end. Nothing here knows a table.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from config.settings import Settings
from models.database_errors import named_errors
from models.deadlines import bound, bound_use
from models.errors import ConfigurationError, TransientError
from models.private_files import make_private_dir
from models.secrets import Keyring
from models.vendor_text import storable

# A writer of SQLite waits for the one before it. A run stores a few megabytes at a time, an uploaded file at once.
SQLITE_BUSY_SECONDS = 60
# SQLite itself soon looks only every 100 ms whether the writer has ended, and so misses the moments between one short
# transaction and the next: an answer waited for 740 ms beside transactions of 20. Within so long it looks four times.
SQLITE_LOOK_MS = 10
# The log is cut to this after a large transaction; without it, it keeps its largest size.
SQLITE_LOG_BYTES, SQLITE_PAGE_BYTES = 64 << 20, 4096
CONNECT_SECONDS = 10

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
        self.engine = _engine(settings, patience, deadline)
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


# SQLSTATE: read_only_sql_transaction, admin_shutdown, crash_shutdown, cannot_connect_now (PostgreSQL, appendix A).
_GONE = frozenset({"25006", "57P01", "57P02", "57P03"})


def _engine(settings: Settings, patience: float | None, deadline: float | None) -> Engine:
    pool: dict[str, Any] = (
        {"poolclass": QueuePool, "pool_size": 2, "max_overflow": 8}
        if patience is None
        else {"poolclass": NullPool}
    )
    connecting = patience or min(deadline or CONNECT_SECONDS, CONNECT_SECONDS)
    try:
        url = make_url(settings.database)
        if url.get_backend_name() == "sqlite":
            seconds = patience or deadline or SQLITE_BUSY_SECONDS
            make_private_dir(settings.data_dir)
            _make_private(url.database)
            engine = create_engine(
                url,
                # Closing the last connection of a WAL database writes it all back: 4 ms of each transaction.
                **pool,
                connect_args={
                    "timeout": seconds,
                    "check_same_thread": False,
                },
                hide_parameters=True,
            )
            _listen(engine)
            event.listen(engine, "connect", _sqlite_connect)
            event.listen(engine, "begin", partial(_sqlite_begin, seconds=seconds))
            return engine
        if url.get_backend_name() == "postgresql":
            url, threshold = _prepare_threshold(url)
            engine = create_engine(
                url,
                hide_parameters=True,  # they may be contact keys, and an error's text is logged
                **pool,
                pool_pre_ping=deadline is None,
                connect_args={
                    "connect_timeout": max(2, round(connecting)),  # psycopg's least
                    "application_name": "cohort-sync",
                    "prepare_threshold": threshold,
                },
            )
            event.listen(engine, "handle_error", _drop_what_is_gone)
            _listen(engine)
            return engine
    except (ArgumentError, NoSuchModuleError, ValueError):
        pass  # said below, without a traceback that holds the password
    raise ConfigurationError(
        "SETTING_INVALID",
        field="COHORT_SYNC_DATABASE_URL",
        value=settings.database.split("@")[-1],
        hint="Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.",
    )


def _prepare_threshold(url: URL) -> tuple[URL, int | None]:
    """The URL without `prepare_threshold`, and its value for psycopg, which wants a number; None if it has none.

    None prepares nothing on the server: a pooler that hands a session from one client to another (PgBouncer in
    transaction mode) would meet another client's statements under the same names.
    """
    given = url.query.get("prepare_threshold")
    return url.difference_update_query(["prepare_threshold"]), None if given is None else int(str(given))


def _drop_what_is_gone(context: ExceptionContext) -> None:
    """A server that shuts down, is unreachable or was demoted: its connections are closed, and the next are new.

    A demoted server keeps its sessions and answers reads, so without this a pool would keep them for ever.
    """
    state = getattr(context.original_exception, "sqlstate", None) or ""
    if state in _GONE or state.startswith("08"):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = True


def _make_private(file: str | None) -> None:
    """The file for its owner alone, before SQLite makes it: its log and index get the same mode."""
    if not file or file == ":memory:":
        return
    with suppress(OSError):  # what can't be opened has a name once it is used
        # Only a new file is opened: closing one drops this process's locks on it (sqlite.org/howtocorrupt.html).
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for ending in ("", "-wal", "-shm"):
        with suppress(OSError):
            if (found := Path(file + ending)).is_file() and found.stat().st_mode & 0o077:
                found.chmod(0o600)


def _storable(value: Any) -> Any:
    """Text that both databases take, at any depth of a statement's parameters."""
    if isinstance(value, str):
        return storable(value) if "\0" in value or not value.isascii() else value
    if isinstance(value, dict):
        return {name: _storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_storable(item) for item in value)
    return value


def _listen(engine: Engine) -> None:
    event.listen(engine, "before_cursor_execute", _before_execute, retval=True)


def _before_execute(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """The one place where text goes to a database: PostgreSQL takes no NUL, neither takes half a surrogate."""
    return statement, _storable(parameters)


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN below, not the driver's guess
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged batch survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA journal_size_limit={SQLITE_LOG_BYTES}")
    cursor.close()


def _sqlite_begin(connection: Connection, seconds: float) -> None:
    """Begin; for a write that waits at most so long for the writer before it."""
    if not connection.get_execution_options().get("cohort_sync_write", False):
        connection.exec_driver_sql("BEGIN")
        return
    cursor, end = connection.connection.cursor(), time.monotonic() + seconds
    try:
        cursor.execute(f"PRAGMA busy_timeout={SQLITE_LOOK_MS}")
        while time.monotonic() < end:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            else:
                return
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the last look fails as any other statement
    finally:
        cursor.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")
        cursor.close()
