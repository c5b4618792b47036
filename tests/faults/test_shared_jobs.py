"""Entering and exiting rows of one run that fit one request go in one job, and whatever happens to it comes right."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from models.tables import CohortBinding
from models.types import BatchState, RunState
from tests.product import RESULTS, STATUS, UPSERT, Product
from tests.support import wait_until

BEFORE = {f"member-{number:03d}" for number in range(120)}
AFTER = {f"member-{number:03d}" for number in range(60, 160)}


def rule(path: str, kind: str, times: int = 1, **action: Any) -> dict[str, Any]:
    return {"path": path, "times": times, "action": {"kind": kind, **action}}


def changed(product: Product, *faults: dict[str, Any]) -> tuple[CohortBinding, int]:
    """A binding whose cohort gains 40 members and loses 60, with the run that is to push that."""
    binding = product.bind()
    product.succeeds(binding, snapshot_id=product.file(binding, BEFORE))
    product.sandbox.door("DELETE", "requests")
    product.sandbox.fault(*faults)
    return binding, product.start(binding, snapshot_id=product.file(binding, AFTER))


def test_one_upsert_has_both_values(product: Product) -> None:
    binding, run_id = changed(product)
    run = product.ended(run_id)
    assert (run.state, run.entered, run.exited, run.acknowledged) == (RunState.SUCCEEDED, 40, 60, 100)
    (body,) = [orjson.loads(line["body"])["items"] for line in product.puts(bodies="1")]
    sent = {row["Contact Key"]: row["Purchasers"] for row in body}
    assert sent == dict.fromkeys(AFTER - BEFORE, True) | dict.fromkeys(BEFORE - AFTER, False)
    assert product.flagged("Purchasers") == AFTER
    assert product.binding(binding).member_count == len(AFTER)


FAULTS: dict[str, tuple[tuple[dict[str, Any], ...], int]] = {
    "its job ends in an error": ((rule(UPSERT, "job_error"),), 3),
    "it is too large together": ((rule(UPSERT, "status", status=413),), 3),
    "it is refused": ((rule(UPSERT, "status", status=400, body={"message": "Bad", "errorcode": 10004}),), 3),
    "it is refused again": (
        (rule(UPSERT, "status", 3, status=400, body={"message": "Bad", "errorcode": 10004}),),
        7,  # each alone, and then the halves of each
    ),
    "its answer is lost": ((rule(UPSERT, "reset_after"),), 3),
    "it was never read": ((rule(UPSERT, "reset_before"),), 3),
    "a pause is asked for": ((rule(UPSERT, "status", status=429, headers={"Retry-After": "1"}),), 2),
    "rows are deadlocked": ((rule(UPSERT, "deadlock_rows", every=10),), 3),
    "rows are deadlocked, and the results come late": (
        (rule(UPSERT, "deadlock_rows", every=10), rule(RESULTS, "cut_items", 2, rows=50)),
        3,
    ),
    "a poll fails": ((rule(STATUS, "status", 2, status=500),), 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_comes_right(embedded: Product, name: str) -> None:
    faults, upserts = FAULTS[name]
    binding, run_id = changed(embedded, *faults)
    run = embedded.ended(run_id)
    assert (run.state, run.error_code, run.acknowledged) == (RunState.SUCCEEDED, None, 100), run.error_message
    assert len(embedded.puts()) == upserts
    assert embedded.flagged("Purchasers") == AFTER
    assert embedded.binding(binding).member_count == len(AFTER)
    assert embedded.most_in_flight() <= 2


def test_refused_rows_of_either_direction_are_told_apart(embedded: Product) -> None:
    """A row is known by its position alone: the entering ones come first."""
    product = embedded
    binding, run_id = changed(product, rule(UPSERT, "row_errors", every=10, message="No.", code=2))
    run = product.ended(run_id)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 90, 10)
    (body,) = [orjson.loads(line["body"])["items"] for line in product.puts(bodies="1")]
    taken = {key for key, value in product.values("Purchasers").items() if value in (True, "true")}
    refused = {row["Contact Key"]: row["Purchasers"] for row in body} if body else {}
    wrong = {key for key, value in refused.items() if (key in taken) != value}
    assert {one.key for one in product.rejections(binding)} == wrong
    assert {one.direction for one in product.rejections(binding)} == {"enter", "exit"}
    product.sandbox.fault()
    product.succeeds(binding, snapshot_id=product.file(binding, AFTER))
    assert product.flagged("Purchasers") == AFTER


def test_next_run_follows_a_job_that_a_failed_one_left(embedded: Product) -> None:
    product = embedded
    binding, run_id = changed(
        product, rule(STATUS, "status", status=403, body={"message": "No", "errorcode": 20002})
    )
    assert product.ended(run_id).state == RunState.FAILED
    assert product.batch_states(run_id) == {BatchState.SUBMITTED}
    product.sandbox.fault()
    after = product.succeeds(binding, snapshot_id=product.file(binding, BEFORE))
    assert (after.entered, after.exited) == (60, 40)
    assert product.batch_states(run_id) == {BatchState.ACKNOWLEDGED}
    assert product.flagged("Purchasers") == BEFORE


def test_it_takes_one_slot(embedded: Product) -> None:
    """While it is under way, and while it is sent, another run has the second one."""
    product = embedded
    product.sandbox.switch(async_order="parallel")
    _, run_id = changed(product, rule(UPSERT, "job_slow", seconds=20.0))
    wait_until(lambda: product.batch_states(run_id) == {BatchState.SUBMITTED}, seconds=30)
    other = product.bind("churnrk", "Churn Risk")
    product.succeeds(other)
    product.sandbox.advance(20.0)
    assert product.ended(run_id).state == RunState.SUCCEEDED
    product.equal("churnrk", "Churn Risk")
