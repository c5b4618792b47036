"""Connections whose time is bounded, for a process that has to answer when the database does not.

A server that is frozen and a network that swallows packets say nothing at all: no driver has a timeout for an
answer, and TCP itself asks after two hours (`tcp_keepalive_time`). So a timer ends the connection from outside,
whatever it is at; who waited for it gets the driver's ordinary error.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

_LINE = "cohort_sync_line"


def bound(engine: Engine, seconds: float) -> None:
    """Cut every connection of this engine `seconds` after it was made; no pool may keep one.

    From the first moment: the dialect asks a new connection what server it has, in a listener of its own.
    """

    def made(connection: Any, record: Any) -> None:
        record.info[_LINE] = _Line(connection, seconds)

    def closing(_connection: Any, record: Any) -> None:
        record.info.pop(_LINE).release()

    event.listen(engine, "connect", made, insert=True)
    event.listen(engine, "close", closing)
    if engine.dialect.name == "postgresql":  # what nobody waits for any more must not go on at the server
        limit = f"SET LOCAL statement_timeout = {seconds * 1000:.0f}"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(limit))


def bound_use(engine: Engine, seconds: float) -> None:
    """Cut a connection of this engine that was made, or taken from its pool, `seconds` ago and not given back.

    It is asked here whether it still answers, for the pool's own question has no bound: `pool_pre_ping` must be off.
    """

    def made(connection: Any, record: Any) -> None:
        given_back(connection, record)  # the pool tries another connection after one that does not answer
        record.record_info[_LINE] = _Line(connection, seconds)

    def taken(connection: Any, record: Any, _proxy: Any) -> None:
        made(connection, record)
        if engine.dialect.name == "postgresql":
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    def given_back(_connection: Any, record: Any) -> None:
        if (line := record.record_info.pop(_LINE, None)) is not None:
            line.release()

    event.listen(engine, "connect", made, insert=True)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", given_back)


class _Line:
    """One connection and its timer. A lock: a descriptor that was closed may be somebody else's a moment later."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def release(self) -> None:
        """It is about to be closed."""
        self._timer.cancel()
        with self._lock:
            self._connection = None

    def _cut(self) -> None:
        with self._lock:
            if isinstance(self._connection, sqlite3.Connection):
                self._connection.interrupt()
            elif self._connection is not None:
                with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
