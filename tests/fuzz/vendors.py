"""The vendors' answers: the sandbox's, of which one at a time is changed on its way to the product's clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import requests
from hypothesis import strategies as st

from config.settings import Settings
from models import schema
from models.database import Database
from models.errors import SyncError
from tests.contract.product import Product, make_product
from tests.contract.sandboxed import CLIENT, Sandbox, running
from tests.fuzz import odd
from tests.support import Valkey
from worker.vendors.amplitude.client import Amplitude
from worker.vendors.marketing_cloud import client as marketing_cloud
from worker.vendors.marketing_cloud.client import MarketingCloud

SECONDS = 60.0
SECRETS = (CLIENT["client_secret"], "sandbox-secret-key", "person-who-must-not-be-shown")
STATUSES = (
    200,
    200,
    200,
    201,
    202,
    204,
    206,
    302,
    304,
    400,
    401,
    403,
    404,
    409,
    413,
    429,
    500,
    503,
    596,
    799,
)
HEADERS = {
    "Retry-After": odd.texts,
    "Content-Encoding": st.sampled_from(("gzip", "deflate", "br", "gzip, gzip", "x")),
    "Content-Type": odd.texts
    | st.sampled_from(("text/html", "application/json; charset=x", "text/xml; charset=utf-16")),
    "Location": odd.texts | st.sampled_from(("/", "http://127.0.0.1:1/", "ftp://x", "//", "http://[")),
    "Content-Length": st.sampled_from(("0", "5", "99999999", "-1", "x")),
    "Transfer-Encoding": st.just("chunked"),
}


@dataclass
class Change:
    """What is done to the answer of the request of that number."""

    number: int
    edit: tuple[str, float, Any] | None
    status: int | None
    headers: dict[str, str]


class Middle(ThreadingHTTPServer):
    """Between the clients and the sandbox."""

    daemon_threads = True

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.theirs = sandbox.url
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.change: Change | None = None
        self.asked = 0

    def handle_error(self, *_: Any) -> None:
        """A client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    server: Middle

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        ours, theirs = self.server.url.encode(), self.server.theirs.encode()
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                self.command,
                self.server.theirs + self.path,
                data=body.replace(ours, theirs),
                headers=sent,
                allow_redirects=False,
                timeout=20,
            )
        said = answer.content.replace(theirs, ours)
        kept = {"Content-Type", "Retry-After", "Location"}
        headers = {name: value for name, value in answer.headers.items() if name in kept}
        if "Location" in headers:
            headers["Location"] = headers["Location"].replace(self.server.theirs, self.server.url)
        status, number, change = answer.status_code, self.server.asked, self.server.change
        self.server.asked += 1
        if change is not None and change.number == number:
            said = odd.edited(said, change.edit) if change.edit else said
            status, headers = change.status or status, headers | change.headers
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(said))} | headers).items():
            line = (
                value.encode("utf-8", "surrogatepass").decode("latin-1").replace("\r", "").replace("\n", "")
            )
            self.send_header(name, line)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(said)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@contextmanager
def _product(folder: Path) -> Iterator[tuple[Product, Middle]]:
    settings = Settings(_env_file=None, data_dir=folder / "data")
    db, queue = Database(settings), Valkey()
    schema.upgrade(db)
    queue.start()
    try:
        with running("--seed=1", "--members=50", "--switch=amplitude_job_seconds=0") as sandbox:
            product = make_product(settings, db, queue, sandbox)
            with Middle(sandbox) as middle:
                threading.Thread(target=middle.serve_forever, args=(0.05,), daemon=True).start()
                product.ctx.settings = product.ctx.settings.model_copy(
                    update={
                        "amplitude_base_url": middle.url,
                        "marketing_cloud_auth_url": f"{middle.url}/v2/token",
                    }
                )
                yield product, middle
                middle.shutdown()
    finally:
        db.dispose()
        queue.close()


changes = st.builds(
    Change,
    st.integers(0, 9),
    st.none() | odd.edits(),
    st.none() | st.sampled_from(STATUSES),
    st.fixed_dictionaries({}, optional=HEADERS),
)


def _named(step: Callable[[], Any]) -> None:
    """Do it; what fails is an error of ours, whose text may be shown."""
    try:
        step()
    except SyncError as error:
        failed = error
    else:
        return
    said = f"{failed} {failed.message} {failed.remedy} {failed.detail}"
    assert failed.code != "INTERNAL", said
    assert len(said) < 10_000, said[:500]
    for secret in SECRETS:
        assert secret not in said, said


def _asked(middle: Middle, change: Change, product: Product, *steps: Callable[[], Any]) -> None:
    """Each step in turn; one that fails says so as an error of ours."""
    product.ctx.redis.flushall()
    middle.asked, middle.change = 0, change
    began = time.monotonic()
    for step in steps:
        _named(step)
    assert time.monotonic() - began < SECONDS, "it took too long"


@contextmanager
def amplitude_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """What the client of Amplitude is answered."""
    with _product(folder) as (product, middle):
        source = product.source()

        def check(change: Change) -> None:
            client = Amplitude(product.ctx, source)
            told: list[str] = ["none"]
            try:
                _asked(
                    middle,
                    change,
                    product,
                    client.cohorts,
                    lambda: told.append(client.request("purchrs", "user_id")),
                    lambda: client.completed(told[-1]),
                    lambda: client.download(told[-1], folder / "file.csv", max_bytes=1_000_000),
                    client.usage,
                )
            finally:
                client.close()
            product.sandbox.reset()

        yield changes, check


@contextmanager
def marketing_cloud_door(folder: Path) -> Iterator[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """What the client of Marketing Cloud is answered."""
    with _product(folder) as (product, middle), mock.patch.object(marketing_cloud, "PAGE_WAIT_SECONDS", 0.01):
        destination = product.destination()
        rows = orjson.dumps({"items": [{"Contact Key": SECRETS[2], "Purchasers": True}]})
        row = orjson.dumps([{"keys": {"Contact Key": SECRETS[2]}, "values": {"Purchasers": "true"}}])
        key = product.sandbox.key

        def check(change: Change) -> None:
            client = MarketingCloud(product.ctx, destination)
            told: list[str] = ["none"]
            try:
                _asked(
                    middle,
                    change,
                    product,
                    client.token,
                    lambda: told.append(client.find().id),
                    lambda: client.rest_fields(told[-1]),
                    lambda: told.append(client.submit(f"key:{key}", rows)),
                    lambda: client.job(told[-1]),
                    lambda: client.results(told[-1]),
                    lambda: client.save(f"key:{key}", row),
                    lambda: list(client.rows(key)),
                )
            finally:
                client.close()

        yield changes, check
