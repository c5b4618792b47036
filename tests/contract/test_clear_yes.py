"""Only the documented yes acknowledges a row, in both write modes: whatever else is answered is sent again."""

from __future__ import annotations

from typing import Any

import pytest

from models.tables import CohortBinding
from models.types import RunState, WriteMode
from tests.contract.product import Product, status

HUB = r"^/hub/v1/dataevents/"
UPSERT = r"^/data/v1/async/dataextensions/[^/]+/rows"
STATUS = r"^/data/v1/async/[^/]+/status"
RESULTS = r"^/data/v1/async/[^/]+/results"
MEMBERS = [f"person-{number:02d}" for number in range(30)]
ROWS = [{"keys": {"Contact Key": key}, "values": {"Purchasers": "true"}} for key in MEMBERS]

NO_YES: dict[str, tuple[int, Any]] = {
    "302": (302, ""),
    "301 with an echo": (301, ROWS),
    "304": (304, ""),
    "201 with an echo": (201, ROWS),
    "202 {}": (202, {}),
    "202 with an echo": (202, ROWS),
    "204": (204, ""),
    "206 with an echo": (206, ROWS),
    "200 HTML": (200, "<html><body>Please log in</body></html>"),
    "200 nothing": (200, ""),
    "200 junk": (200, "{]"),
    "200 null": (200, "null"),
    "200 true": (200, "true"),
    "200 []": (200, []),
    "200 {}": (200, {}),
    "200 error envelope": (200, {"message": "Internal Server Error", "errorcode": 30000}),
    "200 result messages": (200, {"requestId": "x", "resultMessages": [{"resultClass": "Error"}]}),
    "200 one row less": (200, ROWS[:-1]),
    "200 one row twice": (200, [*ROWS[:-1], ROWS[0]]),
    "200 somebody else": (200, [*ROWS[:-1], {"keys": {"Contact Key": "stranger"}}]),
    "200 rows without keys": (200, [{"values": {"Purchasers": "true"}}] * 30),
    "200 rows with an error": (200, [*ROWS[:-1], ROWS[-1] | {"errorcode": 10000, "message": "No."}]),
    "200 keys that are text": (200, [{"keys": key} for key in MEMBERS]),
    "200 strings": (200, MEMBERS),
}


def bound(product: Product, mode: WriteMode) -> CohortBinding:
    product.source()
    product.destination(write_mode=mode)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": MEMBERS})
    return product.binding(max_removal_percent=100)


def flagged(product: Product) -> set[str]:
    return {row["Contact Key"] for row in product.sandbox.rows() if row["Purchasers"]}


@pytest.mark.parametrize("name", NO_YES)
@pytest.mark.parametrize(("mode", "path"), [(WriteMode.SYNC, HUB), (WriteMode.ASYNC, UPSERT)])
def test_no_error_is_no_yes(product: Product, mode: WriteMode, path: str, name: str) -> None:
    code, body = NO_YES[name]
    binding = bound(product, mode)
    product.sandbox.fault(status(path, code, body, times=1))
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.SUCCEEDED, 30, 0)
    assert flagged(product) == set(MEMBERS)
    assert product.sandbox.door("GET", "requests", path="/row")["count"] >= 2  # it was sent again


@pytest.mark.parametrize("name", ["302", "204", "200 HTML", "200 []", "200 {}", "200 somebody else"])
@pytest.mark.parametrize(("mode", "path"), [(WriteMode.SYNC, HUB), (WriteMode.ASYNC, UPSERT)])
def test_a_yes_that_never_comes_ends_the_run_and_nothing_is_forgotten(
    product: Product, mode: WriteMode, path: str, name: str
) -> None:
    code, body = NO_YES[name]
    binding = bound(product, mode)
    product.sandbox.fault(status(path, code, body))
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.error_code) == (RunState.FAILED, 0, "MC_UNAVAILABLE")
    product.sandbox.fault()
    run = product.sync(binding)
    assert (run.state, flagged(product)) == (RunState.SUCCEEDED, set(MEMBERS))


@pytest.mark.parametrize(
    "record",
    [
        {"requestStatus": "Complete"},
        {"requestStatus": "Complete", "resultStatus": "OK"},
        {"requestStatus": "Complete", "resultStatus": "OK", "hasErrors": None},
        {"requestStatus": "Complete", "resultStatus": "Error", "hasErrors": False},
        {"requestStatus": "Complete", "resultStatus": "Has Errors", "hasErrors": False},
        {"requestStatus": "Completed", "resultStatus": "OK", "hasErrors": "no"},
    ],
)
def test_a_job_that_is_not_clearly_without_errors_is_read(product: Product, record: dict[str, Any]) -> None:
    binding = bound(product, WriteMode.ASYNC)
    product.sandbox.fault(
        status(STATUS, 200, {"status": record, "resultMessages": []}, after=3),
        {"path": UPSERT, "action": {"kind": "row_errors", "rows": 2}},
    )
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 28, 2)
    assert len(flagged(product)) == 28


@pytest.mark.parametrize(
    "answer", [(302, ""), (204, ""), (202, {"items": []}), (200, "<html>"), (200, {"items": [{}] * 31})]
)
def test_results_outside_the_documented_form_take_no_row(product: Product, answer: tuple[int, Any]) -> None:
    binding = bound(product, WriteMode.ASYNC)
    product.sandbox.fault(
        {"path": UPSERT, "times": 1, "action": {"kind": "row_errors", "rows": 2}},
        status(RESULTS, *answer, times=1),
    )
    run = product.sync(binding)
    assert run.acknowledged == len(flagged(product))
    assert run.acknowledged in {28, 30}
