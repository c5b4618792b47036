"""A receiver process for tests, and messages as Amplitude's webhook writes them."""

from __future__ import annotations

import http.client
import re
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests

from cli.main import main
from config.settings import Settings
from models.database import Database
from models.membership import webhooks
from models.membership.webhooks import HEADER
from tests.forked import Forked
from tests.support import environment, wait_until

ROOT = Path(__file__).parents[1]


class Receiver:
    """One `cohort-sync receiver` on a free port."""

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        self.log = log
        self.process = Forked(
            main,
            ["receiver", "--port", "0", *arguments],
            cwd=ROOT,
            env=environment(settings),
            stdout=log,
            stderr=log,
        )
        self.url: str = wait_until(self._address, seconds=20)

    def _address(self) -> str:
        text = self.log.read_text()
        assert self.process.poll() is None, text
        found = re.search(r"receiving at (http://[0-9.:]+)/", text)
        return found[1] if found else ""

    def post(self, source: str, secret: str | None, body: Any, *, chunked: bool = False) -> requests.Response:
        headers = {"Content-Type": "application/json", "User-Agent": "Amplitude/Webhook/1.0"}
        if secret is not None:
            headers[HEADER] = secret
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        # requests sends an iterator in chunks, without telling its length
        content = iter([data]) if chunked else data
        return requests.post(f"{self.url}/webhooks/{source}", data=content, headers=headers, timeout=10)

    def answered(self) -> int:
        """How many messages it has dealt with, those of senders that hung up included."""
        return self.log.read_text().count('"event": "webhook"')

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.process.terminate()
        try:
            assert self.process.wait(timeout=10) in {0, -9}, self.log.read_text()
        finally:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_receiver(settings: Settings, directory: Path, *arguments: str) -> Iterator[Receiver]:
    receiver = Receiver(settings, directory / f"receiver-{uuid.uuid4().hex[:6]}.log", *arguments)
    try:
        yield receiver
    finally:
        receiver.close()


def make_secret(db: Database, source: str, now: Any, *, rotate: bool = False) -> str:
    with db.write() as session:
        _, secret = webhooks.make_secret(session, db.keyring, source, rotate=rotate, now=now, actor="test")
    assert secret is not None
    return secret.get_secret_value()


def message(
    users: Sequence[str | dict[str, Any]], *, cohort: str = "purchrs", entered: bool = True, **given: Any
) -> dict[str, Any]:
    """The documented payload."""
    return {
        "cohort_name": "Purchasers",
        "cohort_id": cohort,
        "in_cohort": entered,
        "computed_time": str(int(time.time()) - 60),
        "message_id": f"{uuid.uuid4()}::{'enter' if entered else 'exit'}::0",
        "users": [{"user_id": user} if isinstance(user, str) else user for user in users],
        **given,
    }


class Line:
    """One connection that is kept, as a sender of thousands of messages keeps it; times its answers."""

    def __init__(self, url: str, source: str, secret: str) -> None:
        target = urlsplit(url)
        self._connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
        self._path = f"/webhooks/{source}"
        self._headers = {"Content-Type": "application/json", HEADER: secret}
        self.seconds: list[float] = []

    def send(self, body: bytes) -> int:
        began = time.perf_counter()
        self._connection.request("POST", self._path, body, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        self.seconds.append(time.perf_counter() - began)
        return answer.status

    def close(self) -> None:
        self._connection.close()


def opened(url: str, said: bytes) -> socket.socket:
    target = urlsplit(url)
    one = socket.create_connection((target.hostname, target.port), timeout=10)
    one.sendall(said)
    return one


def closed(one: socket.socket) -> bool:
    """Whether the other side has ended it; what it said before is read away."""
    one.setblocking(False)
    try:
        while one.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
