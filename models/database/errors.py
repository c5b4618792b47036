"""A driver's failures under the names of the catalogue, with where the database is and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError

from models.errors import OldSchemaError, SyncError, TerminalError, TransientError

# Primary result codes of SQLite (sqlite.org/rescode.html), and SQLSTATEs of PostgreSQL (its appendix A).
_FULL = {sqlite3.SQLITE_FULL, "53100"}
_READ_ONLY = {sqlite3.SQLITE_READONLY, "25006"}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, "XX001", "XX002"}
# Somebody else's lock: a deadlock's victim, a lock or a serialization that could not be had.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, "40P01", "40001", "55P03"}
_NO_FILE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


@contextmanager
def named_errors(place: str = "the configured place") -> Iterator[None]:
    """Raise what has a name by it. `place` is the file, or the server without its password."""
    try:
        yield
    except sqlite3.Error as error:  # while a connection is made ready, before SQLAlchemy has it
        raise _named(error, place) or TransientError("DATABASE_UNREACHABLE", _first_line(error)) from error
    except DBAPIError as error:
        named = _named(error.orig, place)
        ours = (
            _code(error.orig) == sqlite3.SQLITE_ERROR
        )  # a statement that is wrong: the database has answered
        if (
            named is None
            and not ours
            and (isinstance(error, OperationalError) or error.connection_invalidated)
        ):
            named = TransientError("DATABASE_UNREACHABLE", _first_line(error.orig))
        if named is None:
            raise
        raise named from error


def _named(cause: BaseException | None, place: str) -> SyncError | None:
    code = _code(cause)
    if code in _FULL:
        return TransientError("DATABASE_FULL", place=place)
    if code in _READ_ONLY:
        return TransientError("DATABASE_READ_ONLY", place=place)
    if code in _DAMAGED:
        return TerminalError("DATABASE_DAMAGED", place=place)
    if code in _NO_FILE:
        return TransientError("DATABASE_NO_FILE", place=place)
    if code in _BUSY:
        return TransientError("DATABASE_BUSY", place=place)
    text = str(cause)
    if "no such table" in text or ('relation "' in text and "does not exist" in text):
        return OldSchemaError("DATABASE_SCHEMA")
    return None


def _code(cause: BaseException | None) -> int | str | None:
    """SQLite's primary result code or PostgreSQL's SQLSTATE."""
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def _first_line(error: BaseException | None) -> str:
    """The driver's first line: it names the server, never a parameter of the statement."""
    return (str(error).splitlines() or [""])[0][:200]
