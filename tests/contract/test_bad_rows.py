"""One bad row stops nobody: it is found by halving, in both write modes, within a bounded number of requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from models.tables import CohortBinding, Rejection
from models.types import RunState, WriteMode
from tests.contract.product import Product, status

HUB = r"^/hub/v1/dataevents/"
UPSERT = r"^/data/v1/async/dataextensions/[^/]+/rows"
MODES = [(WriteMode.SYNC, HUB), (WriteMode.ASYNC, UPSERT)]
PAGE = "<html><body>Request blocked</body></html>"


def bound(product: Product, mode: WriteMode, members: list[str]) -> CohortBinding:
    product.source()
    product.destination(write_mode=mode)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": members})
    return product.binding(max_removal_percent=100)


def flagged(product: Product) -> set[str]:
    return {row["Contact Key"] for row in product.sandbox.rows() if row["Purchasers"]}


def rejected(product: Product) -> list[Rejection]:
    with product.ctx.db.read() as session:
        return list(session.scalars(select(Rejection)))


REFUSALS = {
    "400": (400, {"message": "Bad", "errorcode": 10004}),
    "400 text": (400, "Bad Request"),
    "403 page": (403, PAGE),
    "406 page": (406, PAGE),
    "422": (422, {"message": "Unprocessable"}),
    "413": (413, "too large"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize(("mode", "path"), MODES)
def test_the_bad_row_alone_is_left(product: Product, mode: WriteMode, path: str, name: str) -> None:
    members = [f"person-{number:03d}" for number in range(200)]
    bad = {"person-003", "person-150"}
    binding = bound(product, mode, members)
    refuse = status(path, *REFUSALS[name])
    product.sandbox.fault(refuse | {"body": "person-003|person-150"})
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 198, 2), run.error_message
    assert flagged(product) == set(members) - bad
    found = rejected(product)
    assert {row.key for row in found} == bad
    assert not any(key in row.message for row in found for key in members)
    product.sandbox.fault()
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert flagged(product) == set(members)


@pytest.mark.parametrize("name", ["400", "403 page"])
@pytest.mark.parametrize(("mode", "path"), MODES)
def test_a_refusal_of_everything_ends_soon(product: Product, mode: WriteMode, path: str, name: str) -> None:
    binding = bound(product, mode, [f"person-{number:03d}" for number in range(200)])
    product.sandbox.fault(status(path, *REFUSALS[name]))
    run = product.sync(binding)
    assert (run.state, run.error_code, run.acknowledged) == (RunState.FAILED, "MC_REJECTED", 0)
    assert product.sandbox.door("GET", "requests", path="/row")["count"] < 60


@pytest.mark.parametrize(("mode", "path"), MODES)
def test_a_refusal_that_passes_halves_nothing(product: Product, mode: WriteMode, path: str) -> None:
    binding = bound(product, mode, ["a", "b", "c"])
    product.sandbox.fault(status(path, 403, PAGE, times=1))
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.SUCCEEDED, 3, 0)
    assert product.sandbox.door("GET", "requests", path="/row")["count"] == 2


@pytest.mark.parametrize(("mode", "path"), MODES)
def test_a_repeated_500_is_halved_too(product: Product, mode: WriteMode, path: str) -> None:
    members = [f"person-{number:02d}" for number in range(40)]
    binding = bound(product, mode, members)
    product.sandbox.fault(status(path, 500, "oops") | {"body": "person-07"})
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 39, 1), run.error_message
    assert flagged(product) == set(members) - {"person-07"}


@pytest.mark.parametrize(
    "message",
    [
        "Violation of PRIMARY KEY constraint 'PK_1'. Cannot insert duplicate key in object 'X'.",
        "Lock request time out period exceeded.",
        "Execution Timeout Expired.  The timeout period elapsed prior to completion of the operation.",
        "Transaction (Process ID 64) was deadlocked on lock resources. Rerun the transaction.",
    ],
)
def test_what_passes_is_sent_again(product: Product, message: str) -> None:
    binding = bound(product, WriteMode.ASYNC, ["a", "b", "c"])
    product.sandbox.fault(
        {"path": UPSERT, "times": 1, "action": {"kind": "row_errors", "rows": 1, "message": message}}
    )
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.SUCCEEDED, 3, 0)


def test_a_job_that_ends_in_an_error_for_one_row(product: Product) -> None:
    members = [f"person-{number:02d}" for number in range(40)]
    binding = bound(product, WriteMode.ASYNC, members)
    rule: dict[str, Any] = {"path": UPSERT, "body": "person-07", "action": {"kind": "job_error"}}
    product.sandbox.fault(rule)
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 39, 1), run.error_message
    assert [row.code for row in rejected(product)] == ["JOB_FAILED"]


@pytest.mark.parametrize("code", [2, "Un\0expected", "\ud800", "a b c", "x" * 200, None])
@pytest.mark.parametrize("text", ["bad \0 text", "\x1b[31mred", "lone \udc00 half"])
def test_whatever_a_vendor_says_can_be_stored(product_anywhere: Product, code: Any, text: str) -> None:
    product = product_anywhere
    binding = bound(product, WriteMode.ASYNC, ["a", "b", "c"])
    bad = {"status": "Error", "errorCode": code, "message": text}
    answer = json.dumps({"page": 1, "pageSize": 50, "count": 3, "items": [bad, *[{"status": "OK"}] * 2]})
    product.sandbox.fault(
        {"path": UPSERT, "action": {"kind": "row_errors", "rows": 1}}, status(r"/results", 200, answer)
    )
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 2, 1), run.error_message
    (row,) = rejected(product)
    assert row.message.isprintable()
    assert row.code.isprintable()


@pytest.mark.parametrize("rows", [2, 3, 7])
@pytest.mark.parametrize("name", ["400", "403 page"])
@pytest.mark.parametrize(("mode", "path"), MODES)
def test_a_refusal_of_a_few_rows_is_not_about_each(
    product: Product, mode: WriteMode, path: str, name: str, rows: int
) -> None:
    members = [f"person-{number}" for number in range(rows)]
    binding = bound(product, mode, members)
    product.sandbox.fault(status(path, *REFUSALS[name]))
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.FAILED, "MC_REJECTED")
    assert (run.acknowledged, run.rejected, rejected(product)) == (0, 0, [])
    assert product.sandbox.door("GET", "requests", path="/row")["count"] < 60
    product.sandbox.fault()
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert flagged(product) == set(members)


@pytest.mark.parametrize(("mode", "path"), MODES)
@pytest.mark.parametrize("members", [["bad"], ["bad", "good"], ["good", "bad"]])
def test_a_bad_row_among_few(product: Product, mode: WriteMode, path: str, members: list[str]) -> None:
    binding = bound(product, mode, members)
    product.sandbox.fault(status(path, *REFUSALS["400"]) | {"body": "bad"})
    run = product.sync(binding)
    assert (run.state, run.rejected) == (RunState.PARTIAL, 1), run.error_message
    assert {row.key for row in rejected(product)} == {"bad"}
    assert flagged(product) == set(members) - {"bad"}
