"""Connections to SQLite and to PostgreSQL: how they are made, begun, and given up."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool

from config.settings import Settings
from models.errors import ConfigurationError
from models.private_files import make_private_dir
from models.vendor_text import storable

# A writer of SQLite waits for the one before it. A run stores a few megabytes at a time, an uploaded file at once.
SQLITE_BUSY_SECONDS = 60
# SQLite itself soon looks only every 100 ms whether the writer has ended, and so misses the moments between one short
# transaction and the next: an answer waited for 740 ms beside transactions of 20. Within so long it looks four times.
SQLITE_LOOK_MS = 10
# The log is cut to this after a large transaction; without it, it keeps its largest size.
SQLITE_LOG_BYTES, SQLITE_PAGE_BYTES = 64 << 20, 4096
CONNECT_SECONDS = 10


# SQLSTATE: read_only_sql_transaction, admin_shutdown, crash_shutdown, cannot_connect_now (PostgreSQL, appendix A).
_GONE = frozenset({"25006", "57P01", "57P02", "57P03"})


def make_engine(settings: Settings, patience: float | None, deadline: float | None) -> Engine:
    """An engine whose connections are as `Database` promises; SETTING_INVALID for a URL that is none."""
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
