"""What somebody without a secret can do to the open ports, and what memory a message may take."""

from __future__ import annotations

import re
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
import requests
from sqlalchemy import text

from config.settings import Settings
from models.database import Database
from models.membership.webhooks import HEADER
from models.types import Feed
from receiver.room import cost
from tests.factories import make_binding, make_destination, make_source
from tests.integration.test_flower import serving
from tests.receivers import closed, make_secret, message, opened, running_receiver
from tests.scrape import running_monitor
from tests.support import wait_until

SOURCE = "shop"
HEADS = 1_100
ON_SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Room for this side's connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * HEADS:
        pytest.skip(f"this process may open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * HEADS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def secret(db: Database) -> str:
    make_source(db, SOURCE)
    make_source(db, "without")
    make_destination(db)
    make_binding(db, source=SOURCE, cohort_id="purchrs", feed=Feed.WEBHOOK)
    return make_secret(db, SOURCE, datetime.now(UTC))


@contextmanager
def started(name: str, settings: Settings, directory: Path) -> Iterator[tuple[str, int, str]]:
    """A process that listens: its URL, its id, and a page of it."""
    if name == "receiver":
        with running_receiver(settings, directory) as receiver:
            yield receiver.url, receiver.process.pid, "/healthz"
    elif name == "monitor":
        with running_monitor(settings, directory) as monitor:
            yield monitor.url, monitor.process.pid, "/livez"
    else:
        found: list[int] = []
        with serving(settings, directory / "said", started=found.append) as url:
            yield url, found[0], "/healthcheck"


@ON_SQLITE
@pytest.mark.skipif(sys.platform != "linux", reason="another process's limit of open files")
@pytest.mark.parametrize("name", ["receiver", "monitor", "flower"])
def test_unfinished_heads_keep_nobody_out(name: str, stack: Settings, secret: str, tmp_path: Path) -> None:  # noqa: ARG001 - made before
    given = stack.model_copy(update={"flower_port": 0, "monitor_port": 0})
    with ExitStack() as open_ones, started(name, given, tmp_path) as (url, process, page):
        resource.prlimit(process, resource.RLIMIT_NOFILE, (1024, 1024))
        heads = [open_ones.enter_context(opened(url, b"POST / HTTP/1.1\r\nX-A")) for _ in range(HEADS)]
        for _ in range(3):
            assert requests.get(f"{url}{page}", timeout=5).status_code in {200, 401}
            for head in heads:
                with suppress(OSError):
                    head.sendall(b"a")
        assert sum(map(closed, heads)) > HEADS // 2
    said = "".join(path.read_text() for path in [*tmp_path.glob("*.log"), *tmp_path.glob("said")])
    assert len(said) < 20_000
    assert "Too many open files" not in said


@ON_SQLITE
def test_strangers_get_one_answer(db: Database, secret: str, tmp_path: Path) -> None:
    with running_receiver(db.settings, tmp_path) as receiver:
        answers = set()
        for source in (SOURCE, "1", "without", "nobody", "a/b", "%00", "x" * 2000):
            for given in (None, "", "wrong", secret[:-1], "ü" * 8):
                if answer := receiver.post(source, given, message(["a"])):
                    pytest.fail(f"{source}: {answer.status_code}")
                told = tuple((key, value) for key, value in answer.headers.items() if key != "date")
                answers.add((answer.status_code, answer.content, told))
        assert len(answers) == 1
        assert receiver.post(SOURCE, secret, message(["a"])).status_code == 200


@ON_SQLITE
def test_noise_is_counted_and_not_written(db: Database, secret: str, tmp_path: Path) -> None:
    with running_receiver(db.settings, tmp_path) as receiver:
        with requests.Session() as session:
            for number in range(1_000):
                answer = session.post(f"{receiver.url}/webhooks/{number}", headers={HEADER: "no"}, timeout=10)
                assert answer.status_code == 401
        upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        for said in (b"\x16\x03\x01\r\n\r\n", upgrade, b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 100):
            for _ in range(100):
                opened(receiver.url, said).close()
        assert receiver.post(SOURCE, secret, message(["a"])).status_code == 200
        text = receiver.log.read_text()
        assert len(text) < 20_000
        assert '"status":"stored"' in text.replace(" ", "")


def peak(process: int) -> int:
    """The most memory the process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) * 1024


@ON_SQLITE
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_large_messages(db: Database, secret: str, tmp_path: Path) -> None:
    large = 12_000_000
    bodies = [orjson.dumps(message([f"{line}-{n:x}" for n in range(500_000)])) for line in "abcd"]
    assert large * 0.85 < len(bodies[0]) < large
    dense = orjson.dumps({**message([]), "users": [{}] * 3_900_000})
    assert large * 0.85 < len(dense) < large
    with running_receiver(db.settings, tmp_path, "--max-megabytes", "12") as receiver:
        receiver.post(SOURCE, secret, message(["a"]))
        before, statuses = peak(receiver.process.pid), []

        def send(body: bytes) -> None:
            headers = {HEADER: secret}
            url = f"{receiver.url}/webhooks/{SOURCE}"
            statuses.append(requests.post(url, data=body, headers=headers, timeout=60).status_code)

        send(dense)
        assert statuses.pop() == 413
        senders = [threading.Thread(target=send, args=(body,)) for body in bodies]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        # Four bodies, and what one of them takes; not all of it goes back to the system at once.
        assert peak(receiver.process.pid) - before < 4 * large + 1.5 * cost(bodies[0])
    assert statuses == [200] * 4


@ON_SQLITE
def test_no_more_bodies_are_held_than_there_is_memory_for(db: Database, secret: str, tmp_path: Path) -> None:
    head = f"POST /webhooks/{SOURCE} HTTP/1.1\r\nHost: a\r\n{HEADER}: {secret}\r\nContent-Length: 1000000\r\n\r\n"
    with running_receiver(db.settings, tmp_path, "--max-megabytes", "1") as receiver, ExitStack() as all_of:
        body = b" " * 999_999  # all but one byte
        senders = [all_of.enter_context(opened(receiver.url, head.encode() + body)) for _ in range(8)]
        said: dict[socket.socket, bytes] = {}

        def answered() -> bool:
            for one in senders:
                one.settimeout(0.01)
                with suppress(TimeoutError):
                    said[one] = said.get(one, b"") + one.recv(65_536)
            return sum(b"RECEIVER_BUSY" in answer for answer in said.values()) >= 4

        wait_until(answered, seconds=5)
        for answer in said.values():
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 5" in answer
        all_of.close()
        wait_until(lambda: receiver.post(SOURCE, secret, message(["a"])).status_code == 200, seconds=5)


@ON_SQLITE
def test_a_refusal_that_was_read_whole_is_known_by_its_id(db: Database, secret: str, tmp_path: Path) -> None:
    """It is noted in a turn of its own; see `tests/acceptance/test_webhook_trust.py` for what follows."""
    with running_receiver(db.settings, tmp_path) as receiver:
        assert receiver.post(SOURCE, secret, {**message(["a"]), "in_cohort": "?"}).status_code == 400
        wait_until(lambda: noted(db) == ["purchrs"], seconds=5)


def noted(db: Database) -> list[str]:
    with db.read() as session:
        return [row[0] for row in session.execute(text("SELECT cohort_id FROM webhook_refusal"))]
