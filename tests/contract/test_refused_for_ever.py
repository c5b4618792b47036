"""The row of somebody who has left is refused at every run: a full run looks, and ends it if no flag is there."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from models.tables import CohortBinding, Rejection
from models.types import RunState, WriteMode
from tests.contract.product import Product, status

HUB = r"^/hub/v1/dataevents/"
UPSERT = r"^/data/v1/async/dataextensions/[^/]+/rows"
WRITES = {WriteMode.SYNC: HUB, WriteMode.ASYNC: UPSERT}
GOOD = [f"person-{number:02d}" for number in range(20)]
BAD = "bad-one"

REFUSALS: dict[str, tuple[WriteMode, dict[str, Any]]] = {
    "refused": (WriteMode.ASYNC, status(UPSERT, 400, {"message": "Bad", "errorcode": 10004})),
    "refused, synchronous": (WriteMode.SYNC, status(HUB, 400, {"message": "Bad", "errorcode": 10004})),
    "row refused": (WriteMode.ASYNC, {"path": UPSERT, "action": {"kind": "row_errors", "rows": 1}}),
    "job failed": (WriteMode.ASYNC, {"path": UPSERT, "action": {"kind": "job_error"}}),
}


def bound(product: Product, mode: WriteMode) -> CohortBinding:
    product.source()
    product.destination(write_mode=mode)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": GOOD})
    binding = product.binding(max_removal_percent=100)
    assert product.sync(binding).state == RunState.SUCCEEDED
    return binding


def flagged(product: Product) -> set[str]:
    return {row["Contact Key"] for row in product.sandbox.rows() if row["Purchasers"]}


def rejected(product: Product) -> set[str]:
    with product.ctx.db.read() as session:
        return set(session.scalars(select(Rejection.key)))


def left_in_doubt(product: Product, mode: WriteMode, refusal: dict[str, Any]) -> CohortBinding:
    """Somebody entered, the answer was lost, their row was refused; they have left, and are refused as an exit."""
    binding = bound(product, mode)
    product.sandbox.door("PUT", "cohorts/purchrs", {"enter": [BAD]})
    lost = {"path": WRITES[mode], "times": 1, "action": {"kind": "reset_before"}}
    product.sandbox.fault(lost, refusal | {"body": BAD})
    assert product.sync(binding).state == RunState.PARTIAL
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": [BAD]})
    for _ in range(2):
        run = product.sync(binding)
        assert (run.state, run.exited, run.rejected) == (RunState.PARTIAL, 1, 1)
    assert rejected(product) == {BAD}
    return binding


@pytest.mark.parametrize("name", REFUSALS)
def test_a_full_run_ends_it(product: Product, name: str) -> None:
    """Marketing Cloud shows no flag of theirs and takes no row of theirs: there is nothing left to do."""
    mode, refusal = REFUSALS[name]
    binding = left_in_doubt(product, mode, refusal)
    run = product.sync(binding, full=True)
    assert (run.state, run.exited, run.rejected) == (RunState.SUCCEEDED, 1, 0), run.error_message
    assert rejected(product) == set()
    assert product.count(binding) == (len(GOOD), False, len(GOOD))
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": GOOD[:1]})
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert flagged(product) == set(GOOD[1:])


def test_a_member_who_is_gone_there_and_refused_is_ended_too(product: Product) -> None:
    """Acknowledged once, then deleted there with the row; the key is refused now."""
    binding = bound(product, WriteMode.ASYNC)
    product.sandbox.door("DELETE", "rows", keys=[GOOD[3]])
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": [GOOD[3]]})
    product.sandbox.fault(REFUSALS["refused"][1] | {"body": GOOD[3]})
    assert product.sync(binding).state == RunState.PARTIAL
    assert product.sync(binding, full=True).state == RunState.SUCCEEDED
    assert product.count(binding) == (len(GOOD) - 1, False, len(GOOD) - 1)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_flag_that_is_there_is_never_given_up(product: Product, name: str) -> None:
    mode, refusal = REFUSALS[name]
    binding = bound(product, mode)
    leaver = GOOD[7]
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": [leaver]})
    product.sandbox.fault(refusal | {"body": leaver})
    for full in (False, True, True):
        run = product.sync(binding, full=full)
        assert (run.state, run.rejected) == (RunState.PARTIAL, 1)
        assert rejected(product) == {leaver}
        assert product.count(binding) == (len(GOOD), False, len(GOOD))
    product.sandbox.fault()
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert flagged(product) == set(GOOD) - {leaver}


def test_an_error_of_the_server_proves_nothing(product: Product) -> None:
    mode, refusal = REFUSALS["refused"]
    binding = left_in_doubt(product, mode, refusal)
    product.sandbox.fault(status(UPSERT, 500, "Oops") | {"body": BAD})
    assert product.sync(binding, full=True).state == RunState.FAILED
    assert rejected(product) == {BAD}
    product.sandbox.fault(refusal | {"body": BAD})
    assert product.sync(binding, full=True).state == RunState.SUCCEEDED
