"""Whatever happens, neither a secret nor a contact key is written anywhere but where it belongs.

A whole sync, with faults, at the most talkative log level: the logs of every process, what Celery sends as
messages and events, and the rows that people read are searched.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from models.tables import AuditEvent, Rejection, SyncRun
from models.types import RunState
from tests.contract.sandboxed import Sandbox
from tests.product import DOWNLOAD, RESULTS, STATUS, UPSERT, Product, running_product, settings_for
from tests.support import QUEUE_KEY

SECRETS = ("sandbox-api-key", "sandbox-secret-key", "sandbox-client-secret")
TOKEN = re.compile(r"eyJ[\w-]{20,}")
MEMBERS = [f"somebody.{number:03d}@example.com" for number in range(300)]
RULES = [
    {"path": UPSERT, "times": 1, "action": {"kind": "reset_after"}},
    {"path": UPSERT, "times": 1, "action": {"kind": "expire_tokens"}},
    {"path": UPSERT, "times": 1, "action": {"kind": "status", "status": 500, "body": "<html>"}},
    {
        "path": UPSERT,
        "times": 1,
        "action": {"kind": "row_errors", "rows": 3, "message": f"The value {MEMBERS[0]} is not valid."},
    },
    {"path": STATUS, "times": 1, "action": {"kind": "garbage"}},
    {"path": STATUS, "times": 1, "action": {"kind": "status", "status": 500, "body": MEMBERS[1]}},
    {"path": RESULTS, "times": 1, "action": {"kind": "status", "status": 503, "body": MEMBERS[2]}},
    {"path": "^/cohorts/", "times": 1, "action": {"kind": "truncate"}},
    {"path": "/api/3/cohorts", "times": 1, "action": {"kind": "status", "status": 500, "body": MEMBERS[3]}},
]


@pytest.fixture
def talkative(vendors: Sandbox, short_path: Path) -> Iterator[Product]:
    directory = short_path / "secrets"
    directory.mkdir()
    settings = settings_for(vendors, directory, log_level="DEBUG", max_attempts=20)
    with running_product(vendors, settings, directory) as product:
        product.begin()
        yield product
        product.forget()


def test_nothing_is_told(talkative: Product) -> None:
    product = talkative
    heard: list[str] = []
    with listening(product, heard):
        product.cohort("purchrs", members=MEMBERS)
        product.sandbox.switch(amplitude_inline_bytes=0)
        binding = product.bind()
        product.sandbox.fault(*RULES)
        assert product.sync(binding).state == RunState.PARTIAL
        assert product.succeeds(binding).acknowledged == 3
        product.sandbox.fault({"path": DOWNLOAD, "action": {"kind": "file_html"}})
        assert product.sync(binding).state == RunState.FAILED
        product.sandbox.fault()
        product.sandbox.door("PUT", "package", {"client_secret": "another-one"})
        product.sandbox.door("DELETE", "tokens")
        product.cohort("purchrs", members=MEMBERS[5:])
        assert product.sync(binding).error_code == "MC_CREDENTIALS"
        product.sandbox.door("PUT", "package", {"client_secret": "sandbox-client-secret"})
        product.succeeds(binding)
        product.equal("purchrs", "Purchasers")
    with product.db.read() as session:
        rows: list[Any] = [*session.scalars(select(SyncRun)), *session.scalars(select(AuditEvent))]
        told = [r.message for r in session.scalars(select(Rejection))]
    rows_said = json.dumps([{k: str(v) for k, v in vars(row).items()} for row in rows])
    log = product.log.read_text()
    assert "run_finished" in log
    assert "task-received" in "".join(heard)
    files = [path for path in product.db.settings.data_dir.rglob("*") if path.suffix == ".log"]
    for text in (log, rows_said, *told, *heard, *(path.read_text() for path in files)):
        for secret in SECRETS:
            assert secret not in text
        assert TOKEN.search(text) is None
        assert "@example.com" not in text


class listening:  # noqa: N801 - reads as one word of the test
    """What Celery sends as events, and what it puts on the queue, while the block runs."""

    def __init__(self, product: Product, heard: list[str]) -> None:
        self._product, self._heard, self._stop = product, heard, threading.Event()
        self._threads = [threading.Thread(target=self._events), threading.Thread(target=self._queue)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _events(self) -> None:
        with self._product.app.connection_for_read() as connection:
            receiver = self._product.app.events.Receiver(
                connection, handlers={"*": lambda event: self._heard.append(json.dumps(event, default=str))}
            )
            while not self._stop.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.3, wakeup=True)
                except TimeoutError:
                    continue

    def _queue(self) -> None:
        while not self._stop.wait(0.01):
            for raw in self._product.redis.lrange(QUEUE_KEY, 0, -1):
                self._heard += [raw.decode(), base64.b64decode(json.loads(raw)["body"]).decode()]
