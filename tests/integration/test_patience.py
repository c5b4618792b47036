"""A database that says nothing keeps nobody who has no time: real servers, and a network that swallows packets."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import text

from models.database import Database
from models.errors import TransientError

PATIENCE = 0.5
CONNECTING = 2.0  # less than this PostgreSQL's driver does not wait for a connection
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


class Wire:
    """A TCP port that leads to a server's unix socket, until it is told to swallow what comes."""

    def __init__(self, path: str) -> None:
        self.swallows = False
        self._path = path
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._carry, args=(self._listening.accept()[0],), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far, suppress(OSError):
            far.connect(self._path)
            other = {near: far, far: near}
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    said = ready.recv(1 << 16)
                    if not said:
                        return
                    if not self.swallows:
                        other[ready].sendall(said)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def wire(postgres_db: Database) -> Iterator[Wire]:
    host = parse_qs(urlsplit(postgres_db.settings.database).query)["host"][0]
    found = Wire(f"{host}/.s.PGSQL.5432")
    yield found
    found.close()


def asked(db: Database, question: str = "SELECT 1") -> tuple[object, float]:
    """The answer, or the error's code; and the seconds it took."""
    began = time.monotonic()
    answer: object
    try:
        with db.read() as session:
            answer = session.scalar(text(question))
    except TransientError as error:
        answer = error.code
    return answer, time.monotonic() - began


def test_a_question_that_takes_too_long_is_ended(db: Database) -> None:
    hasty = Database(db.settings, patience=PATIENCE)
    assert asked(hasty) == (1, pytest.approx(0, abs=3))
    answer, seconds = asked(hasty, ENDLESS)
    assert answer == "DATABASE_UNREACHABLE"
    assert PATIENCE - 0.1 < seconds < PATIENCE + 3
    assert asked(hasty)[0] == 1
    if db.dialect == "postgresql":  # and the server has given it up as well
        with db.read() as session:
            still = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%RECURSIVE n(i)%'"
            assert session.scalar(text(f"{still} AND pid <> pg_backend_pid()")) == 0


def test_a_network_that_swallows_packets_is_left(postgres_db: Database, wire: Wire) -> None:
    url = postgres_db.engine.url.set(host="127.0.0.1", port=wire.port, query={})
    there = postgres_db.settings.model_copy(
        update={"database_url": url.render_as_string(hide_password=False)}
    )
    hasty = Database(there, patience=PATIENCE)
    assert asked(hasty)[0] == 1
    began = time.monotonic()
    with suppress(TransientError), hasty.read() as session:
        session.scalar(text("SELECT 1"))
        wire.swallows = True
        session.scalar(text("SELECT 1"))
        pytest.fail("nobody can have answered that")
    assert PATIENCE - 0.1 < time.monotonic() - began < PATIENCE + 3
    answer, seconds = asked(hasty)  # no connection can be made either
    assert answer == "DATABASE_UNREACHABLE"
    assert seconds < CONNECTING + 3
    wire.swallows = False
    assert asked(hasty)[0] == 1
