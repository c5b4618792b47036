"""What comes from others while it runs: the webhook's messages, and the queue's items. Real processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from sqlalchemy import func, select

from cli.main import main
from config.queue import KEY_PREFIX, QUEUES
from config.settings import Settings
from models import schema
from models.database import Database
from models.membership.webhooks import HEADER
from models.tables import WebhookMessage
from models.types import Feed
from tests.factories import make_binding, make_destination, make_source
from tests.forked import Forked
from tests.fuzz import odd
from tests.receivers import ROOT, make_secret, message, running_receiver
from tests.support import Valkey, environment, wait_until

PERSON = "person-who-must-not-be-shown"
CODES = {"MESSAGE_INVALID", "SECRET_WRONG", "WEBHOOK_COHORT_UNKNOWN", "WEBHOOK_TOO_OLD", "BODY_TOO_LARGE"}
_USER = {
    "type": "object",
    "properties": {"user_id": {"type": "string"}, "user_properties": {"type": "object"}},
}
_MESSAGE = {
    "type": "object",
    "required": ["cohort_id", "message_id", "in_cohort", "computed_time", "users"],
    "properties": {
        "cohort_id": {"type": "string", "enum": ["purchrs"]},
        "message_id": {"type": "string", "pattern": "^[!-~]{1,200}$"},
        "in_cohort": {"type": "boolean"},
        "computed_time": {"type": "string", "pattern": "^1[0-9]{9}$"},
        "users": {"type": "array", "items": _USER},
    },
}
_DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "receiver", "version": "1"},
    "paths": {
        "/webhooks/{source}": {
            "post": {
                "parameters": [
                    {
                        "name": "source",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "enum": ["shop"]},
                    }
                ],
                "requestBody": {"required": True, "content": {"application/json": {"schema": _MESSAGE}}},
                "responses": {"200": {"description": "stored"}},
            }
        }
    },
}


def _database(settings: Settings) -> Database:
    db = Database(settings)
    schema.upgrade(db)
    make_source(db, "shop")
    make_destination(db)
    make_binding(db, "buyers", source="shop", cohort_id="purchrs", feed=Feed.WEBHOOK)
    return db


@contextmanager
def receiver_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """Messages that fit their schema, that don't, and bytes that are none."""
    settings = Settings(_env_file=None, data_dir=folder / "data", log_format="json")
    db = _database(settings)
    secret = make_secret(db, "shop", datetime.now(UTC))
    operation = schemathesis.openapi.from_dict(_DOCUMENT)["/webhooks/{source}"]["POST"]

    def stored() -> int:
        with db.read() as session:
            return session.scalar(select(func.count(WebhookMessage.id))) or 0

    with running_receiver(settings, folder, "--max-megabytes", "1") as receiver:
        connection = requests.Session()

        def check(given: Any) -> None:
            before = stored()
            if isinstance(given, schemathesis.Case):
                answer: Any = given.call(
                    base_url=receiver.url, headers={HEADER: secret}, session=connection, timeout=30
                )
            else:
                change, headers = given
                body = odd.edited(json.dumps(message([PERSON])).encode(), change)
                answer = connection.post(
                    f"{receiver.url}/webhooks/shop",
                    data=body,
                    headers={HEADER: secret, **headers},
                    timeout=30,
                )
            assert answer.status_code in {200, 400, 401, 404, 405, 409, 413}, (
                answer.status_code,
                answer.text,
            )
            assert PERSON not in answer.text
            if answer.status_code != 200:
                assert stored() == before
                if answer.headers.get("content-type") == "application/json":
                    assert answer.json()["error"]["code"] in CODES, answer.text
            assert receiver.process.poll() is None

        fits, odd_ones = (
            operation.as_strategy(generation_mode=mode)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        )
        headers = st.fixed_dictionaries(
            {},
            optional={
                "Content-Encoding": st.sampled_from(("gzip", "x")),
                "Content-Type": st.sampled_from(("text/plain", "application/json; charset=utf-16", "")),
                "X-Forwarded-For": st.sampled_from(("1.2.3.4", "x" * 5_000)),
            },
        )
        yield fits | odd_ones | st.tuples(odd.edits(), headers), check
        connection.close()
        said = receiver.log.read_text()
        assert "Traceback" not in said
        assert PERSON not in said
        assert secret not in said
    assert urlsplit(receiver.url).port
    db.dispose()


_PROPERTIES = {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": QUEUES[0]}}
_ITEM = {
    "body": '[["1"], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"task": "sync.push", "id": "1", "lang": "py", "root_id": "1", "argsrepr": "", "retries": 0},
    "properties": _PROPERTIES,
}


@contextmanager
def queue_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """Items of a worker's queue that are nearly right. One worker takes them all."""
    queue = Valkey()
    queue.start()
    settings = Settings(_env_file=None, data_dir=folder / "data", log_format="json", redis_url=queue.url)
    db, log = _database(settings), folder / "worker.log"
    worker = Forked(
        main, ["worker", "--concurrency", "1"], cwd=ROOT, env=environment(settings), stdout=log, stderr=log
    )
    try:

        def check(items: list[tuple[str, tuple[str, float, Any]]]) -> None:
            for name, change in items:
                queue.client.lpush(KEY_PREFIX + name, odd.edited(json.dumps(_ITEM).encode(), change))
            wait_until(lambda: not any(queue.client.llen(KEY_PREFIX + name) for name in QUEUES), seconds=10)
            assert worker.poll() is None, log.read_text()[-3_000:]

        yield st.lists(st.tuples(st.sampled_from(QUEUES), odd.edits()), max_size=20), check
        # It still takes what is right.
        queue.client.lpush(KEY_PREFIX + QUEUES[0], json.dumps(_ITEM))
        wait_until(lambda: not queue.client.llen(KEY_PREFIX + QUEUES[0]), seconds=10)
        assert worker.poll() is None
    finally:
        worker.terminate()
        try:
            worker.wait(40)
        finally:
            worker.kill()
            queue.close()
        db.dispose()
    assert "Traceback" not in log.read_text(), log.read_text()[-3_000:]
