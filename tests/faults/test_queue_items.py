"""Items that nobody of ours put into the queue: they are dropped, the worker stays, and the runs go on."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from config.queue_names import KEY_PREFIX, QUEUE, WAKE_QUEUE
from tests.product import Product
from tests.support import wait_until

PROPERTIES = {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": QUEUE}}
JSON = {"content-type": "application/json", "content-encoding": "utf-8", "headers": {}}
ITEMS = {
    "empty": b"",
    "text": b"hello",
    "no UTF-8": b"\xff\xfe",
    "half an object": b'{"body": ',
    "a number": b"7",
    "null": b"null",
    "a list": b"[1, 2]",
    "nested too deep": b"[" * 100_000,
    "an empty object": b"{}",
    "no delivery tag": json.dumps({"body": "e30=", "properties": {}}).encode(),
    "properties of text": json.dumps({"body": "e30=", "properties": "x"}).encode(),
    "a body that is no base64": json.dumps(
        JSON | {"body": "%%%", "properties": PROPERTIES | {"body_encoding": "base64"}}
    ).encode(),
    "headers of text": json.dumps(JSON | {"body": "{}", "properties": PROPERTIES, "headers": "x"}).encode(),
    "a pickle": json.dumps(
        {"body": "gASVAAAA", "content-type": "application/x-python-serialize", "properties": PROPERTIES}
    ).encode(),
    "no task": json.dumps(JSON | {"body": "[[], {}, {}]", "properties": PROPERTIES}).encode(),
    "a task nobody has": json.dumps(
        JSON | {"body": "[[], {}, {}]", "properties": PROPERTIES, "headers": {"task": "x", "id": "1"}}
    ).encode(),
    "a task whose body is false": json.dumps(
        JSON
        | {
            "body": False,
            "properties": PROPERTIES,
            "headers": {"task": "sync.push", "id": "1", "argsrepr": ""},
        }
    ).encode(),
    "a task with odd arguments": json.dumps(
        JSON
        | {
            "body": '[["x", "y"], {}, {}]',
            "properties": PROPERTIES,
            "headers": {"task": "sync.push", "id": "1"},
        }
    ).encode(),
}


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_of_somebody_else_ends_no_worker(embedded: Product, name: str) -> None:
    product = embedded
    worker, ends = product.stack.pid("worker-1"), product.stack.ends("worker-1")
    with Redis.from_url(product.db.settings.redis) as queue:
        for key in (QUEUE, WAKE_QUEUE):
            queue.lpush(KEY_PREFIX + key, ITEMS[name], ITEMS[name])
        product.succeeds(product.bind())
        wait_until(lambda: not any(queue.llen(KEY_PREFIX + key) for key in (QUEUE, WAKE_QUEUE)), seconds=20)
    assert (product.stack.pid("worker-1"), product.stack.ends("worker-1")) == (worker, ends)
