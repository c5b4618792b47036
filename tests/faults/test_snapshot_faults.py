"""Amplitude at its worst: a download is paid for once, and a file that is not whole pushes nothing."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest

from models.membership import snapshots
from models.types import RunState, Stage
from tests.product import DOWNLOAD, FILE, POLL, Product, utc_now

STORE = r"^/cohorts/"
REDIRECT = {"amplitude_inline_bytes": 0}


def rule(path: str, kind: str, *, action: dict[str, Any] | None = None, **match: Any) -> dict[str, Any]:
    return {"path": path, **match, "action": {"kind": kind, **(action or {})}}


def answers(path: str, status: int, body: Any = "", *, headers: Any = None, **match: Any) -> dict[str, Any]:
    more = {"status": status, "body": body, "headers": headers or {}}
    return rule(path, "status", action=more, **match)


def asked(product: Product) -> int:
    """How often a download was requested, whatever became of it."""
    return len([r for r in product.requests("/api/5/cohorts/request/") if not r["path"].endswith("/file")])


TOO_MANY = {"error": {"http_code": 429, "type": "too_many_requests", "message": "Exceeded concurrent limit"}}
EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
PASSING: dict[str, tuple[list[dict[str, Any]], dict[str, Any], int]] = {
    # the fault, the switches, how often the download is asked for
    "refused with 429": ([answers(DOWNLOAD, 429, TOO_MANY, headers={"Retry-After": "1"}, times=1)], {}, 2),
    "refused with 503": ([answers(DOWNLOAD, 503, "", times=1)], {}, 2),
    "a poll answers 500": ([answers(POLL, 500, "Internal error", times=2)], {}, 1),
    "a poll is reset": ([rule(POLL, "reset_after", times=1)], {}, 1),
    "a slow job": ([rule(DOWNLOAD, "cohort_slow", times=1, action={"seconds": 0.7})], {}, 1),
    "the link has expired": ([answers(STORE, 403, EXPIRED, times=1)], REDIRECT, 1),
    "the transfer breaks off": ([rule(f"{FILE}|{STORE}", "truncate", times=2)], {}, 1),
    "the transfer breaks off at the store": ([rule(STORE, "truncate", times=1)], REDIRECT, 1),
    "the file answers 500": ([answers(FILE, 500, "Internal error", times=1)], {}, 1),
    "tabs": ([], {"csv_tab": True}, 1),
    "bare gzip": ([], {"csv_gzip": "bare"}, 1),
    "plain text": ([], {"csv_gzip": "off"}, 1),
}


@pytest.mark.parametrize("name", PASSING)
def test_it_passes_by_itself(embedded: Product, name: str) -> None:
    rules, switches, times = PASSING[name]
    embedded.sandbox.switch(**switches)
    embedded.sandbox.fault(*rules)
    embedded.succeeds(embedded.bind())
    embedded.equal("purchrs", "Purchasers")
    assert asked(embedded) == times
    assert embedded.downloads() == 1


@pytest.mark.parametrize(
    "fault",
    [
        rule(DOWNLOAD, "reset_after", times=1),
        rule(DOWNLOAD, "garbage", times=1),
        answers(DOWNLOAD, 504, "<html>Gateway Time-out</html>", times=1),
        answers(DOWNLOAD, 500, "Internal error", times=1),
    ],
    ids=["reset", "garbage", "504", "500"],
)
def test_a_request_whose_answer_is_lost_is_not_repeated(embedded: Product, fault: dict[str, Any]) -> None:
    product = embedded
    binding = product.bind()
    product.sandbox.fault(fault)
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.FAILED, "SNAPSHOT_REQUEST_LOST")
    assert asked(product) == 1
    assert product.puts() == []
    product.succeeds(binding)  # at once: nobody waits for the one that was lost
    assert asked(product) == 2
    product.equal("purchrs", "Purchasers")
    with product.db.read() as session:
        run = session.get_one(type(run), run.id)
        assert snapshots.spent_this_month(session, run.binding.project_id, now=utc_now()) == 2


FORBIDDEN = {"error": {"http_code": 403, "metadata": {"details": "Invalid API/Secret Key combination"}}}


@pytest.mark.parametrize(
    ("cohort", "fault", "code"),
    [
        ("purchrs", rule(DOWNLOAD, "file_html"), "SNAPSHOT_NOT_CSV"),
        ("purchrs", rule(DOWNLOAD, "wrong_columns"), "SNAPSHOT_COLUMN_MISSING"),
        ("purchrs", rule(FILE, "cut"), "SNAPSHOT_TRUNCATED"),
        ("purchrs", rule(FILE, "empty"), "SNAPSHOT_EMPTY"),
        ("purchrs", rule(DOWNLOAD, "cohort_never"), "SNAPSHOT_DEADLINE"),
        ("purchrs", answers("^/api/3/cohorts", 403, FORBIDDEN), "AMPLITUDE_CREDENTIALS"),
        ("archivd", None, "COHORT_ARCHIVED"),
        ("grpcomp", None, "COHORT_OF_GROUPS"),
        ("unknown", None, "COHORT_NOT_FOUND"),
    ],
)
def test_a_file_that_is_none_pushes_nothing(
    embedded: Product, cohort: str, fault: dict[str, Any] | None, code: str
) -> None:
    product = embedded
    binding = product.bind(cohort)
    if fault is not None:
        product.sandbox.fault(fault)
    run_id = product.start(binding)
    if code == "SNAPSHOT_DEADLINE":
        product.until(run_id, state=RunState.WAITING, stage=Stage.SNAPSHOT)
        product.give_up_downloads()
    run = product.ended(run_id)
    assert (run.state, run.error_code) == (RunState.FAILED, code)
    assert run.error_remedy
    assert asked(product) == (0 if "COHORT_" in code or "CRED" in code else 1)
    assert product.requests(vendor="marketing_cloud") == []
    assert product.batches(run.id) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"user_id\nZo\xeb\n", "SNAPSHOT_ENCODING"),
        ("user_id\na\n".encode("utf-16"), "SNAPSHOT_ENCODING"),
        (gzip.compress(b"user_id\n" + b"member\n" * 1000, mtime=0)[:-20], "SNAPSHOT_TRUNCATED"),
        (b'user_id\n"a', "SNAPSHOT_TRUNCATED"),
        (b"", "SNAPSHOT_EMPTY"),
        (b"PK\x03\x04rest", "SNAPSHOT_NOT_CSV"),
        (b"mail\na\n", "SNAPSHOT_COLUMN_MISSING"),
    ],
)
def test_an_uploaded_file_that_is_none(embedded: Product, data: bytes, code: str) -> None:
    product = embedded
    binding = product.bind()
    with product.db.write() as session:
        mine = session.get_one(type(binding), binding.id)
        stored = snapshots.store_upload(session, mine, io.BytesIO(data), now=utc_now()).id
    run = product.sync(binding, snapshot_id=stored)
    assert (run.state, run.error_code) == (RunState.FAILED, code)
    assert product.requests(vendor="marketing_cloud") == []
    with product.db.read() as session:  # personal data of a run that has ended
        assert list(snapshots.iter_upload(session, stored)) == []


def test_the_file_s_host_sees_no_credentials(embedded: Product) -> None:
    embedded.sandbox.switch(**REDIRECT)
    embedded.succeeds(embedded.bind())
    seen = embedded.requests(vendor="amplitude_files")
    assert [line["authorization"] for line in seen] == [False]
    assert all(line["authorization"] for line in embedded.requests(vendor="amplitude"))


def test_runs_that_share_a_download_share_its_end(embedded: Product) -> None:
    """The one that requested it gives it up; the other must not take a file that was never made."""
    from models.types import Trigger

    product = embedded
    product.sandbox.fault(rule(DOWNLOAD, "cohort_never"))
    due = utc_now()
    pair = [product.bind(), product.bind("purchrs", "Trialers")]
    started = [product.start(b, trigger=Trigger.SCHEDULE, scheduled_for=due) for b in pair]
    for run_id in started:
        product.until(run_id, state=RunState.WAITING, stage=Stage.SNAPSHOT)
    product.give_up_downloads()
    assert [product.ended(run_id).error_code for run_id in started] == ["SNAPSHOT_DEADLINE"] * 2
    assert asked(product) == 1


def test_a_key_too_long_for_the_field(embedded: Product) -> None:
    binding = embedded.bind("churnrk", "Churn Risk")
    run = embedded.sync(binding, snapshot_id=embedded.file(binding, ["x" * 255]))
    assert (run.state, run.error_code) == (RunState.FAILED, "KEY_TOO_LONG")
    assert embedded.puts() == []
