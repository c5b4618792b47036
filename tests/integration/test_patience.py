"""A database that says nothing keeps nobody who has no time: real servers, and a network that swallows packets."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import event, text

from config import pulse
from config.graceful_stop import GracefulStop
from config.settings import Settings
from models.database import Database
from models.database.engine import SQLITE_LOG_BYTES
from models.errors import TransientError
from models.observability.health import HEARTBEATS
from scheduler import main as scheduling
from scheduler.publish import Publisher
from tests.support import Valkey, wait_until

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


def behind(wire: Wire, db: Database) -> Settings:
    """The settings of a process that reaches the database by the wire."""
    url = db.engine.url.set(host="127.0.0.1", port=wire.port, query={})
    return db.settings.model_copy(update={"database_url": url.render_as_string(hide_password=False)})


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


either = pytest.mark.parametrize("given", [{"patience": PATIENCE}, {"deadline": PATIENCE}])


@either
def test_a_question_that_takes_too_long_is_ended(db: Database, given: dict[str, float]) -> None:
    hasty = Database(db.settings, **given)
    assert asked(hasty) == (1, pytest.approx(0, abs=3))
    answer, seconds = asked(hasty, ENDLESS)
    assert answer == "DATABASE_UNREACHABLE"
    assert PATIENCE - 0.1 < seconds < PATIENCE + 3
    assert asked(hasty)[0] == 1
    if db.dialect == "postgresql" and "patience" in given:  # and the server has given it up as well
        still = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%RECURSIVE n(i)%'"
        )
        wait_until(lambda: asked(db, f"{still} AND pid <> pg_backend_pid()")[0] == 0, seconds=PATIENCE + 10)
    hasty.dispose()


@either
def test_a_network_that_swallows_packets_is_left(
    postgres_db: Database, wire: Wire, given: dict[str, float]
) -> None:
    hasty = Database(behind(wire, postgres_db), **given)
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
    wire.swallows = True  # while the connection lies in the pool, where there is one
    answer, seconds = asked(hasty)
    assert answer == "DATABASE_UNREACHABLE"
    assert seconds < CONNECTING + 3
    hasty.dispose()


@either
def test_a_new_connection_is_bounded_before_it_is_asked_anything(
    postgres_db: Database, wire: Wire, given: dict[str, float]
) -> None:
    hasty = Database(behind(wire, postgres_db), **given)
    event.listen(hasty.engine, "connect", lambda *_: setattr(wire, "swallows", True), insert=True)
    answer, seconds = asked(hasty)
    assert answer == "DATABASE_UNREACHABLE"
    assert seconds < CONNECTING + 3
    hasty.dispose()


def test_a_lock_that_is_kept_is_not_waited_for(db: Database) -> None:
    hasty = Database(db.settings, deadline=PATIENCE)
    with db.write() as session:
        if db.dialect == "postgresql":
            session.execute(text("LOCK TABLE sync_run"))
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"DATABASE_(UNREACHABLE|BUSY)"), hasty.write() as other:
            other.execute(text("UPDATE sync_run SET attempt = 0"))
        assert time.monotonic() - began < PATIENCE + 3
    hasty.dispose()


def test_a_scheduler_goes_round_while_its_database_says_nothing(
    postgres_db: Database, wire: Wire, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives signs of life, so nobody takes it for stuck and starts it again; then it works on."""
    assert scheduling.DATABASE_SECONDS + 2 * pulse.BEAT_SECONDS <= pulse.STALE_SECONDS
    for module in (pulse, scheduling):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.1)
    settings = behind(wire, postgres_db).model_copy(update={"redis_url": valkey.url})
    db, publisher = Database(settings, deadline=PATIENCE), Publisher(settings)
    loop, stop, beats = scheduling.Loop(db, publisher, 0.1), GracefulStop(), set()

    def beat() -> int | None:
        return pulse.last_beat(settings.data_dir, "scheduler", os.getpid())

    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    wait_until(beat, seconds=10)
    wire.swallows = True
    time.sleep(1)
    for _ in range(4):
        beats.add(
            wait_until(lambda: (now := beat()) not in beats and now, seconds=CONNECTING + PATIENCE + 20)
        )
    wire.swallows = False
    wait_until(lambda: valkey.client.keys(f"{HEARTBEATS}*"), seconds=30)
    stop.ask()
    thread.join()
    loop.pulse.stop()
    publisher.close()
    db.dispose()


def test_who_is_waited_for_leaves_it_to_others_to_write_the_log_back(sqlite_db: Database) -> None:
    """A receiver's small commit would pay for the megabytes of a run; without anybody else the log has its bound."""
    file = sqlite_db.settings.data_dir / "cohort-sync.db"
    log, bound = file.with_name(f"{file.name}-wal"), SQLITE_LOG_BYTES
    prompt = Database(sqlite_db.settings, prompt=True)
    before = file.stat().st_size
    largest = 0
    for megabytes in range(1, 2 + (bound >> 20)):
        with prompt.write() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS filler (data BLOB)"))
            session.execute(text("INSERT INTO filler VALUES (zeroblob(1048576))"))
        largest = max(largest, log.stat().st_size)
        if megabytes < (bound >> 20) - 2:
            assert file.stat().st_size == before
    assert file.stat().st_size > bound
    assert largest < 1.1 * bound
    with sqlite_db.write() as session:
        session.execute(text("INSERT INTO filler VALUES (zeroblob(8388608))"))
    assert file.stat().st_size > bound + (8 << 20) - (1 << 20)
    prompt.dispose()
