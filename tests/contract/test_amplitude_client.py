"""The client of Amplitude against the sandbox: documented facts, failures, both positions of what is unknown."""

from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from models.types import Region, Stage
from tests.contract.product import Product, refused, status
from tests.contract.sandboxed import until
from tests.integration.door import Door
from worker.membership.snapshot_file import inspect
from worker.vendors.amplitude.client import Amplitude
from worker.vendors.http import AnswerLostError, Http

LIST = r"^/api/3/cohorts$"
REQUEST = r"^/api/5/cohorts/request/[^/]+$"
POLL = r"^/api/5/cohorts/request-status/"
FILE = r"^/api/5/cohorts/request/[^/]+/file"
STORE = r"^/cohorts/"
MB = 1 << 20


def download(client: Amplitude, path: Path, column: str = "user_id", cohort: str = "purchrs") -> Path:
    """The whole flow."""
    request_id = client.request(cohort, column)
    until(lambda: client.completed(request_id))
    client.download(request_id, path, max_bytes=MB)
    return path


def keys(path: Path, column: str = "user_id") -> list[str]:
    """The keys that the product reads from a file."""
    from worker.membership import csv_reference

    file = inspect(path, column, max_bytes=16 * MB, workdir=path.parent)
    return [key for cells in csv_reference.read(file) for key in cells]


def error_of(action: Any) -> SyncError:
    """The error that something ends in."""
    with pytest.raises(SyncError) as caught:
        action()
    refused(caught.value)
    return caught.value


# --- who may ask, and where -------------------------------------------------------------------------------


def test_wrong_secret(product: Product) -> None:
    client = product.amplitude(secret_key=SecretStr("nonsense"))
    assert error_of(client.cohorts).code == "AMPLITUDE_CREDENTIALS"


def test_unknown_key_and_other_region(product: Product) -> None:
    client = product.amplitude(
        api_key=SecretStr("sandbox-eu-api-key"), secret_key=SecretStr("sandbox-eu-secret-key")
    )
    assert error_of(client.cohorts).code == "AMPLITUDE_REGION"
    product.sandbox.switch(region="eu")
    assert client.cohorts()


def test_each_region_has_its_host(product: Product) -> None:
    product.ctx.settings.amplitude_base_url = ""
    assert product.amplitude()._base == "https://amplitude.com"
    assert product.amplitude(name="eu", region=Region.EU)._base == "https://analytics.eu.amplitude.com"


def test_unexplained_403_is_no_wrong_key(product: Product) -> None:
    product.sandbox.fault(status(LIST, 403, {"error": {"message": "Plan does not include the API"}}))
    error = error_of(product.amplitude().cohorts)
    assert error.code == "AMPLITUDE_FORBIDDEN"
    assert "Plan does not include" in error.message


def test_vendors_words_are_shown_without_our_keys(product: Product) -> None:
    product.sandbox.fault(status(LIST, 403, {"error": {"message": "sandbox-secret-key\nis odd" + "x" * 500}}))
    error = error_of(product.amplitude().cohorts)
    assert "sandbox-secret-key" not in str(error)
    assert "… is odd" in error.message
    assert len(error.message) < 400


# --- the list ---------------------------------------------------------------------------------------------


def test_list_is_read_leniently(product: Product) -> None:
    one = {
        "id": "abc1234",
        "definition": {"countGroup": "User"},
        "lastComputed": 1_692_206_763_000,
        "size": None,
    }
    odd = {"id": "def5678", "name": None, "definition": None, "lastComputed": None, "published": None}
    product.sandbox.fault(status(LIST, 200, {"cohorts": [one, odd, {"name": "no id"}, None]}))
    found = product.amplitude().cohorts()
    assert [(c.id, c.group, c.size, c.last_computed) for c in found] == [
        ("abc1234", "User", None, None),
        ("def5678", "User", None, None),
    ]


def test_sync_information_is_read_leniently(product: Product) -> None:
    ended = {"target": "Cohort Webhook", "last_failure": "2023-03-21T16:09:58.848454-07:00"}
    odd = {"target": None, "last_successful": "yesterday", "last_failure": "2023-03-21T16:09:58"}
    listed = [
        {"id": "named12", "syncMetadata": [{"target": "braze", "last_failure": None}, ended]},
        {"id": "only123", "syncMetadata": [odd]},
        {"id": "which12", "syncMetadata": [{"target": "braze"}, {"target": "s3"}]},
        {"id": "none123", "syncMetadata": "soon"},
    ]
    product.sandbox.fault(status(LIST, 200, {"cohorts": listed}))
    named, only, which, none = product.amplitude().cohorts(with_syncs=True)
    assert named.webhook is not None
    assert named.webhook.last_failure == datetime(2023, 3, 21, 23, 9, 58, 848454, tzinfo=UTC)
    assert only.webhook is not None
    assert (only.webhook.last_successful, only.webhook.last_failure) == (None, None)
    assert (which.webhook, none.webhook) == (None, None)


def test_list_that_is_none(product: Product) -> None:
    client = product.amplitude()
    product.sandbox.fault(
        status(LIST, 200, {"cohorts": None}, times=1), {"path": LIST, "action": {"kind": "html"}}
    )
    assert error_of(client.cohorts).code == "AMPLITUDE_CONTRACT"
    assert isinstance(error_of(client.cohorts), TransientError)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"archived": True}, "COHORT_ARCHIVED"),
        ({"countGroup": {"name": "company"}}, "COHORT_OF_GROUPS"),
        ({"countGroup": "company"}, "COHORT_OF_GROUPS"),
        ({"size": 2_000_001}, "COHORT_TOO_LARGE"),
        ({"published": False}, "COHORT_NOT_FOUND"),
    ],
)
def test_cohorts_that_cannot_be_synced(product: Product, change: dict[str, Any], code: str) -> None:
    product.sandbox.door("PUT", "cohorts/purchrs", change)
    assert error_of(lambda: product.amplitude().require("purchrs")).code == code


def test_never_computed_and_hidden_cohorts_can_be_synced(product: Product) -> None:
    product.sandbox.door("PUT", "cohorts/purchrs", {"finished": False, "hidden": True})
    found = product.amplitude().require("purchrs")
    assert (found.finished, found.hidden, found.published) == (False, True, True)


# --- the request that costs a download ----------------------------------------------------------------------


def spent(product: Product) -> int:
    """Downloads by the sandbox's count."""
    used: int = product.sandbox.door("GET", "state")["amplitude"]["downloads_used"]
    return used


def sent(product: Product, path: str = "/api/5/cohorts/request/") -> int:
    """Requests that reached the sandbox."""
    found = product.sandbox.door("GET", "requests", path=path)["requests"]
    return sum(1 for line in found if "/file" not in line["path"])


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "reset_after"},
        {"kind": "reset_before"},
        {"kind": "truncate"},
        {"kind": "empty"},
        {"kind": "html"},
        {"kind": "garbage"},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 504},
        {"kind": "status", "status": 202, "body": {"cohort_id": "purchrs"}},
    ],
    ids=lambda action: f"{action['kind']}-{action.get('status', '')}",
)
def test_costly_request_is_sent_once_whatever_the_answer(product: Product, action: dict[str, Any]) -> None:
    product.sandbox.fault({"path": REQUEST, "action": action})
    error = error_of(lambda: product.amplitude().request("purchrs", "user_id"))
    assert isinstance(error, AnswerLostError)
    assert sent(product) == 1


def test_costly_request_follows_no_redirect(product: Product) -> None:
    target = {"Location": f"{product.sandbox.url}/api/5/cohorts/request/purchrs"}
    product.sandbox.fault(status(REQUEST, 302, "", headers=target, times=1))
    assert isinstance(error_of(lambda: product.amplitude().request("purchrs", "user_id")), AnswerLostError)
    assert (sent(product), spent(product)) == (1, 0)


def test_costly_request_that_was_not_taken_may_come_again(product: Product) -> None:
    product.sandbox.fault(status(REQUEST, 503, "busy", times=1))
    client = product.amplitude()
    error = error_of(lambda: client.request("purchrs", "user_id"))
    assert isinstance(error, TransientError)
    assert not isinstance(error, AnswerLostError)
    assert client.request("purchrs", "user_id")
    assert spent(product) == 1


class OneRequestAConnection(BaseHTTPRequestHandler):
    """A gateway that drops a connection without a word when it is used a second time."""

    protocol_version = "HTTP/1.1"
    used = False

    def do_GET(self) -> None:
        if self.used:
            self.close_connection = True
            return
        self.used = True
        body = b'{"cohorts": [], "request_id": "abc"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


def test_costly_request_uses_a_connection_of_its_own(product: Product) -> None:
    """One that stood idle may be closed by now, which would look like an answer lost."""
    with ThreadingHTTPServer(("127.0.0.1", 0), OneRequestAConnection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        product.ctx.settings.amplitude_base_url = f"http://127.0.0.1:{server.server_port}"
        client = product.amplitude()
        client.cohorts()
        assert client.request("purchrs", "user_id") == "abc"
        assert isinstance(error_of(client.cohorts), AnswerLostError)
        client.close()
        server.shutdown()


def test_answer_that_never_comes(product: Product) -> None:
    product.sandbox.fault({"path": REQUEST, "action": {"kind": "hang", "seconds": 5}})
    client = product.amplitude()
    client._http = Http("AMPLITUDE_UNAVAILABLE", read_seconds=0.2)
    assert isinstance(error_of(lambda: client.request("purchrs", "user_id")), AnswerLostError)


@pytest.mark.parametrize("code", [404, 400, 403])
def test_unknown_cohort_in_every_status(product: Product, code: int) -> None:
    product.sandbox.switch(amplitude_unknown_cohort_status=code)
    error = error_of(lambda: product.amplitude().request("nowhere", "user_id"))
    assert error.code == "COHORT_NOT_FOUND"


@pytest.mark.parametrize("code", [400, 403, 413])
def test_too_large_cohort_in_every_status(product: Product, code: int) -> None:
    product.sandbox.switch(amplitude_max_members=10, amplitude_oversize_status=code)
    error = error_of(lambda: product.amplitude().request("purchrs", "user_id"))
    assert error.code == "COHORT_TOO_LARGE"


def test_archived_cohort_that_is_refused(product: Product) -> None:
    product.sandbox.switch(amplitude_archived_request="refused")
    assert error_of(lambda: product.amplitude().request("archivd", "user_id")).code == "COHORT_ARCHIVED"


@pytest.mark.parametrize("code", [429, 403])
def test_spent_quota_in_both_statuses(product: Product, code: int) -> None:
    product.sandbox.switch(amplitude_monthly_quota=1, amplitude_quota_status=code)
    client = product.amplitude()
    client.request("purchrs", "user_id")
    error = error_of(lambda: client.request("churnrk", "user_id"))
    assert error.code == "AMPLITUDE_QUOTA"
    assert isinstance(error, ConfigurationError)


def test_spent_quota_in_unknown_words_is_told_by_the_usage(product: Product) -> None:
    """A 429 that says nothing would be waited for until the first of the month."""
    product.sandbox.switch(amplitude_monthly_quota=1)
    client = product.amplitude()
    client.request("purchrs", "user_id")
    product.sandbox.fault(status(REQUEST, 429, {"error": {"message": "Limit exceeded"}}))
    assert error_of(lambda: client.request("churnrk", "user_id")).code == "AMPLITUDE_QUOTA"


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "least", "most"), [(7, 6.5, 7.0), (0, 19.0, 20.0)])
def test_429_cools_everybody_down(product: Product, header: int, least: float, most: float) -> None:
    product.sandbox.switch(amplitude_parallel=1, amplitude_retry_after=header, amplitude_job_seconds=5.0)
    source = product.source()
    client, other = Amplitude(product.ctx, source), Amplitude(product.ctx, source)
    client.request("purchrs", "user_id")
    error = error_of(lambda: client.request("churnrk", "user_id"))
    assert isinstance(error, RateLimited)
    assert least <= error.retry_after <= most
    before = sent(product)
    again = error_of(lambda: other.request("trialer", "user_id"))
    assert isinstance(again, RateLimited)
    assert least - 1 <= again.retry_after <= most
    assert sent(product) == before
    client.close()
    other.close()


def test_60_requests_in_ten_minutes_for_all_workers(product: Product) -> None:
    product.sandbox.switch(amplitude_parallel=0)
    source = product.source()
    clients = [Amplitude(product.ctx, source) for _ in range(3)]
    for n in range(60):
        clients[n % 3].request("purchrs", "user_id")
    error = error_of(lambda: clients[0].request("purchrs", "user_id"))
    assert isinstance(error, RateLimited)
    assert 500 < error.retry_after <= 600
    assert product.sandbox.door("GET", "state")["amplitude"]["refused_by_limit"] == {}
    for client in clients:
        client.close()


def test_five_at_once_for_all_workers(product: Product) -> None:
    product.sandbox.fault({"path": LIST, "action": {"kind": "delay", "seconds": 0.6}})
    source, gate = product.source(), threading.Barrier(9)

    def ask() -> str:
        client = Amplitude(product.ctx, source)
        gate.wait()
        try:
            return f"{len(client.cohorts()) > 0}"
        except RateLimited as error:
            return error.code
        finally:
            client.close()

    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda _: ask(), range(9)))
    assert sorted(answers) == ["AMPLITUDE_RATE_LIMITED"] * 4 + ["True"] * 5


def test_a_place_is_held_while_a_file_is_read(product: Product, tmp_path: Path) -> None:
    client = product.amplitude()
    request_id = client.request("purchrs", "user_id")
    until(lambda: client.completed(request_id))
    held: list[int] = []
    save = client._save

    def watched(*args: Any) -> None:
        held.extend(product.ctx.redis.zcard(key) for key in product.ctx.redis.keys("*at-once"))
        save(*args)

    client._save = watched  # type: ignore[method-assign]
    client.download(request_id, tmp_path / "a.csv", max_bytes=MB)
    assert held == [1]
    assert [product.ctx.redis.zcard(key) for key in product.ctx.redis.keys("*at-once")] == []


# --- status -------------------------------------------------------------------------------------------------


def test_status_words(product: Product) -> None:
    client = product.amplitude()
    body = {"async_status": "JOB INPROGRESS"}
    product.sandbox.fault(
        status(POLL, 202, body, nth=1),
        status(POLL, 200, body, nth=2),
        status(POLL, 200, {"async_status": "JOB COMPLETED"}, nth=3),
        status(POLL, 200, {"async_status": "JOB LOST"}, nth=4),
    )
    assert [client.completed("abc") for _ in range(3)] == [False, False, True]
    assert isinstance(error_of(lambda: client.completed("abc")), ContractError)


@pytest.mark.parametrize("code", [404, 410, 400])
def test_request_id_that_is_not_there_is_asked_for_again(product: Product, code: int) -> None:
    """No documented answer: it may be young, and a download has been paid for it."""
    product.sandbox.switch(amplitude_expired_status=code, amplitude_request_life=0.0)
    client = product.amplitude()
    request_id = client.request("purchrs", "user_id")
    error = error_of(lambda: client.completed(request_id))
    assert isinstance(error, TransientError)


@pytest.mark.parametrize("kind", ["html", "garbage", "empty", "reset_before", "truncate"])
def test_poll_that_goes_wrong_passes(product: Product, kind: str) -> None:
    client = product.amplitude()
    request_id = client.request("purchrs", "user_id")
    product.sandbox.fault({"path": POLL, "times": 1, "action": {"kind": kind}})
    assert isinstance(error_of(lambda: client.completed(request_id)), TransientError)
    until(lambda: client.completed(request_id))


# --- the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["header", "bare", "off"])
@pytest.mark.parametrize("inline", [0, 10**9])
def test_file_inline_and_behind_a_link_in_every_encoding(
    product: Product, tmp_path: Path, form: str, inline: int
) -> None:
    product.sandbox.switch(csv_gzip=form, amplitude_inline_bytes=inline)
    path = download(product.amplitude(), tmp_path / "file.csv")
    assert sorted(k for k in keys(path) if k) == sorted(product.sandbox.members("purchrs"))
    assert path.read_bytes().startswith(b'"amplitude_id"') is (form == "off")


def test_link_never_sees_credentials(product: Product, tmp_path: Path) -> None:
    product.sandbox.switch(amplitude_inline_bytes=0)
    download(product.amplitude(), tmp_path / "file.csv")
    (line,) = product.sandbox.door("GET", "requests", vendor="amplitude_files")["requests"]
    assert line["authorization"] is False
    assert all(
        x["authorization"] for x in product.sandbox.door("GET", "requests", vendor="amplitude")["requests"]
    )


def test_expired_link_is_fetched_anew(product: Product, tmp_path: Path) -> None:
    product.sandbox.door("PUT", "faults", {"presets": ["amplitude-link-expired"]})
    assert keys(download(product.amplitude(), tmp_path / "file.csv"))
    assert spent(product) == 1


def test_link_that_stays_expired(product: Product, tmp_path: Path) -> None:
    product.sandbox.switch(amplitude_inline_bytes=0)
    product.sandbox.fault(status(STORE, 403, "<Error/>"))
    error = error_of(lambda: download(product.amplitude(), tmp_path / "file.csv"))
    assert isinstance(error, TransientError)
    assert len(product.sandbox.door("GET", "requests", vendor="amplitude_files")["requests"]) == 3


@pytest.mark.parametrize("link", ["", "ftp://files/a.csv", "//evil/a.csv"])
def test_link_that_is_none(product: Product, tmp_path: Path, link: str) -> None:
    product.sandbox.fault(status(FILE, 302, "", headers={"Location": link}))
    assert error_of(lambda: download(product.amplitude(), tmp_path / "f.csv")).code == "AMPLITUDE_CONTRACT"


def test_link_without_tls_is_refused_where_amplitude_has_it(product: Product, tmp_path: Path) -> None:
    client = product.amplitude()
    request_id = client.request("purchrs", "user_id")
    until(lambda: client.completed(request_id))
    product.sandbox.switch(amplitude_inline_bytes=0)
    real, client._base = client._base, "https://amplitude.com"
    send = client._http.send
    client._http.send = lambda m, url, **o: send(m, url.replace(client._base, real), **o)  # type: ignore[method-assign]
    error = error_of(lambda: client.download(request_id, tmp_path / "f.csv", max_bytes=MB))
    assert error.code == "AMPLITUDE_CONTRACT"


@pytest.mark.parametrize("code", [400, 404, 409])
def test_file_that_is_not_ready(product: Product, tmp_path: Path, code: int) -> None:
    product.sandbox.switch(amplitude_not_ready_status=code, amplitude_job_seconds=60.0)
    client = product.amplitude()
    request_id = client.request("purchrs", "user_id")
    error = error_of(lambda: client.download(request_id, tmp_path / "f.csv", max_bytes=MB))
    assert isinstance(error, TransientError)
    assert not isinstance(error, AnswerLostError)


@pytest.mark.parametrize("inline", [0, 10**9])
def test_transfer_that_breaks_off(product: Product, tmp_path: Path, inline: int) -> None:
    product.sandbox.switch(amplitude_inline_bytes=inline)
    product.sandbox.fault({"path": STORE if not inline else FILE, "times": 1, "action": {"kind": "truncate"}})
    client, path = product.amplitude(), tmp_path / "f.csv"
    request_id = client.request("purchrs", "user_id")
    until(lambda: client.completed(request_id))
    assert isinstance(error_of(lambda: client.download(request_id, path, max_bytes=MB)), AnswerLostError)
    assert list(tmp_path.glob("f.csv*")) == []
    client.download(request_id, path, max_bytes=MB)
    assert len(keys(path)) >= 600
    assert spent(product) == 1


def test_file_over_size(product: Product, tmp_path: Path) -> None:
    client = product.amplitude()
    request_id = client.request("purchrs", "user_id")
    until(lambda: client.completed(request_id))
    path = tmp_path / "f.csv"
    error = error_of(lambda: client.download(request_id, path, max_bytes=1000))
    assert error.code == "SNAPSHOT_TOO_LARGE"
    assert list(tmp_path.glob("f.csv*")) == []
    client.download(request_id, path, max_bytes=MB)
    assert error_of(lambda: inspect(path, "user_id", max_bytes=1000)).code == "SNAPSHOT_TOO_LARGE"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"path": FILE, "action": {"kind": "cut"}}, "SNAPSHOT_TRUNCATED"),
        ({"path": FILE, "action": {"kind": "empty"}}, "SNAPSHOT_EMPTY"),
        ({"path": FILE, "action": {"kind": "html"}}, "SNAPSHOT_NOT_CSV"),
        ({"path": REQUEST, "action": {"kind": "file_html"}}, "SNAPSHOT_NOT_CSV"),
        (
            {"path": FILE, "action": {"kind": "status", "status": 200, "body": {"error": 1}}},
            "SNAPSHOT_NOT_CSV",
        ),
        ({"path": REQUEST, "action": {"kind": "wrong_columns"}}, "SNAPSHOT_COLUMN_MISSING"),
        (
            {"path": FILE, "action": {"kind": "status", "status": 200, "body": "PK\x03\x04zip"}},
            "SNAPSHOT_NOT_CSV",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value["action"]["kind"],
)
def test_bodies_that_are_no_cohort_each_have_their_error(
    product: Product, tmp_path: Path, rule: dict[str, Any], code: str
) -> None:
    product.sandbox.switch(amplitude_inline_bytes=10**9)
    product.sandbox.fault(rule)
    path = download(product.amplitude(), tmp_path / "f.csv")
    assert error_of(lambda: keys(path)).code == code


def test_empty_cohort_has_a_header(product: Product, tmp_path: Path) -> None:
    product.sandbox.fault({"path": REQUEST, "action": {"kind": "no_rows"}})
    assert keys(download(product.amplitude(), tmp_path / "f.csv")) == []


# --- the mapped property --------------------------------------------------------------------------------------


PEOPLE = [
    {"user_id": "u1", "amplitude_id": 11, "properties": {"crm": "k1", "email": "a@b.c"}},
    {"user_id": "u2", "amplitude_id": 12, "properties": {"crm": "k2"}},
    {"user_id": "", "amplitude_id": 13, "properties": {}},
]


@pytest.mark.parametrize("tab", [False, True])
@pytest.mark.parametrize("header", ["bare", "gp"])
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("user_id", ["u1", "u2", ""]),
        ("amplitude_id", ["11", "12", "13"]),
        ("crm", ["k1", "k2", ""]),
        ("gp:crm", ["k1", "k2", ""]),
    ],
)
def test_any_property_is_the_key(
    product: Product, tmp_path: Path, column: str, expected: list[str], header: str, tab: bool
) -> None:
    product.sandbox.switch(csv_property_header=header, csv_tab=tab)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": PEOPLE})
    assert keys(download(product.amplitude(), tmp_path / "f.csv", column), column) == expected


def test_properties_are_asked_for_by_name_and_only_if_needed(product: Product) -> None:
    client = product.amplitude()
    for column in ("user_id", "amplitude_id", "gp:my prop&x"):
        client.request("purchrs", column)
    asked = [
        x["path"].partition("?")[2]
        for x in product.sandbox.door("GET", "requests", path="/api/5")["requests"]
    ]
    assert asked == ["", "", "props=1&propKeys=my+prop%26x"]


@pytest.mark.parametrize(
    ("position", "code"),
    [("omitted", "SNAPSHOT_COLUMN_MISSING"), ("error", "AMPLITUDE_PROPERTY"), ("empty", "")],
)
def test_missing_property_is_told_by_name(product: Product, tmp_path: Path, position: str, code: str) -> None:
    product.sandbox.switch(csv_unknown_property=position)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": PEOPLE})
    if not code:  # an empty column: every row is blank, which the counts and the guards show
        assert keys(download(product.amplitude(), tmp_path / "f.csv", "nope"), "nope") == ["", "", ""]
        return
    error = error_of(lambda: keys(download(product.amplitude(), tmp_path / "f.csv", "nope"), "nope"))
    assert error.code == code
    assert "nope" in error.message


def test_tab_before_a_phone_number(product: Product, tmp_path: Path) -> None:
    product.sandbox.switch(csv_tab=True)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["+4412345", "=1+1", 'a"b,c', "plain"]})
    assert keys(download(product.amplitude(), tmp_path / "f.csv")) == ["+4412345", "=1+1", 'a"b,c', "plain"]


# --- the usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["rest_download", "flat"])
def test_usage_in_both_shapes(product: Product, shape: str) -> None:
    product.sandbox.switch(amplitude_usage_shape=shape)
    client = product.amplitude()
    client.request("purchrs", "user_id")
    usage = client.usage()
    assert usage is not None
    assert (usage.used, usage.limit) == (1, 500)
    assert bool(usage.resets_at) is (shape == "rest_download")


@pytest.mark.parametrize("body", [{}, {"rest_download": 5}, {"limit": "500", "usage": 1}])
def test_usage_in_another_shape_is_not_told(product: Product, body: dict[str, Any]) -> None:
    product.sandbox.fault(status("/usage$", 200, body))
    assert product.amplitude().usage() is None


def test_file_is_asked_for_in_gzip_alone(product: Product, tmp_path: Path) -> None:
    """The bytes are kept as sent; another encoding could not be read later."""
    client = product.amplitude()
    assert client._http._session.headers["Accept-Encoding"] == "gzip"
    assert gzip.decompress(download(client, tmp_path / "f.csv").read_bytes()).startswith(b'"amplitude_id"')


def test_usage_stands_beside_our_own_ledger(product: Product, tmp_path: Path) -> None:
    product.amplitude(name="shop").request(
        "purchrs", "user_id"
    )  # not booked by a run: Amplitude knows, we don't
    door = Door(product.ctx.settings, tmp_path)
    said = door.ok("source", "usage", "shop", "--json").json
    assert (said["spent"], said["quota"], said["left"]) == (0, 500, 500)
    assert (said["amplitude"]["spent"], said["amplitude"]["quota"]) == (1, 500)
    assert "1 of 500" in door.ok("source", "usage", "shop").out
    product.sandbox.fault(status("/usage$", 404, "none"))
    assert door.ok("source", "usage", "shop", "--json").json["amplitude"] is None
    assert "not told (AMPLITUDE_CONTRACT)" in door.ok("source", "usage", "shop").out


def test_request_older_than_seven_days(product: Product) -> None:
    """A run that was held for long: the file is gone, and only a new request brings another one."""
    product.source()
    product.destination()
    run_id = product.start(product.binding())
    product.work(run_id, until=Stage.DIFF)
    product.moved = timedelta(days=7, seconds=1)
    run = product.work(run_id)
    assert (run.state, run.error_code) == ("failed", "SNAPSHOT_EXPIRED")


def test_no_retry_of_a_run_repeats_the_costly_request(product: Product) -> None:
    product.source()
    product.destination()
    binding = product.binding()
    product.sandbox.fault(
        status(REQUEST, 503, "busy", nth=[1, 2]),
        {"path": POLL, "nth": 1, "action": {"kind": "reset_after"}},
        status(POLL, 500, "oops", nth=2),
        status(POLL, 404, "unknown", nth=3),
        {"path": FILE, "nth": 1, "action": {"kind": "truncate"}},
    )
    assert product.sync(binding).state == "succeeded"
    assert (sent(product), spent(product)) == (3, 1)
    product.sandbox.fault({"path": REQUEST, "action": {"kind": "reset_after"}})
    run = product.sync(binding)
    assert (run.state, run.error_code) == ("failed", "SNAPSHOT_REQUEST_LOST")
    assert spent(product) == 2


def test_month_that_is_used_up_by_our_ledger(product: Product) -> None:
    """Nothing is asked for then; on the first of the next month, UTC, the count begins anew."""
    product.source(monthly_quota=1)
    product.destination()
    binding = product.binding()
    assert product.sync(binding).state == "succeeded"
    run = product.sync(binding)
    assert (run.state, run.error_code, sent(product)) == ("failed", "AMPLITUDE_QUOTA", 1)
    now = product.ctx.clock()
    first = (now.replace(day=1) + timedelta(days=32)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    product.moved += first - now
    product.sandbox.advance((first - now).total_seconds())
    assert product.sync(binding).state == "succeeded"
    assert sent(product) == 2


def test_four_jobs_at_once_for_all_workers(product: Product) -> None:
    product.sandbox.switch(amplitude_job_seconds=3600.0)
    product.source()
    product.destination()
    runs = []
    for n in range(5):
        product.sandbox.door("PUT", f"cohorts/cohort{n}", {"members": [f"m{n}"]})
        runs.append(product.start(product.binding(cohort_id=f"cohort{n}", attribute=f"Flag {n}")))
    for run_id in runs:
        product.claim(run_id)
    assert [product.look(run_id).snapshot is not None for run_id in runs] == [True] * 4 + [False]
    assert (sent(product), product.look(runs[-1]).state) == (4, "waiting")
    assert product.sandbox.door("GET", "state")["amplitude"]["refused_by_limit"] == {}
