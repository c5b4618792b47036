"""Runs of a destination that takes rows by synchronous calls: to the last row, whatever goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from models.tables import CohortBinding, PushBatch, Rejection, SyncRun
from models.types import BatchState, RunState, Stage, WriteMode
from tests.contract.product import Product, status

HUB = r"^/hub/v1/dataevents/"
ENGAGE = "data-extensions/Amplitude%20Engage"


@pytest.fixture
def binding(product: Product) -> CohortBinding:
    product.source()
    product.destination(write_mode=WriteMode.SYNC)
    return product.binding(max_removal_percent=100)


def flagged(product: Product, attribute: str = "Purchasers", value: Any = True) -> set[str]:
    """Contact keys with that value."""
    return {row["Contact Key"] for row in product.sandbox.rows() if row[attribute] == value}


def hub(product: Product) -> list[dict[str, Any]]:
    """The synchronous calls, oldest first."""
    found: list[dict[str, Any]] = product.sandbox.door("GET", "requests", path="/hub/")["requests"]
    return found


def members(product: Product) -> set[str]:
    return set(product.sandbox.members("purchrs"))


def test_entering_and_leaving_fifty_at_a_time(product: Product, binding: CohortBinding) -> None:
    run = product.sync(binding)
    assert (run.state, run.acknowledged) == (RunState.SUCCEEDED, len(members(product)))
    assert flagged(product) == members(product)
    assert [call["rows"] for call in hub(product)] == [50] * 11 + [48]
    assert product.sandbox.door("GET", "requests", path="/async/")["count"] == 0
    left = members(product)
    product.sandbox.door("PUT", "cohorts/purchrs", {"churn": {"exit": 60, "enter": 3}})
    run = product.sync(binding)
    assert (run.state, run.entered, run.exited) == (RunState.SUCCEEDED, 3, 60)
    assert flagged(product) == members(product)
    assert flagged(product, value=False) == left - members(product)


@pytest.mark.parametrize(("attribute", "true"), [("Text Flag", "true"), ("Number Flag", 1)])
def test_text_and_number_flags(product: Product, attribute: str, true: Any) -> None:
    product.source()
    product.destination(write_mode=WriteMode.SYNC)
    assert product.sync(product.binding(attribute=attribute)).state == RunState.SUCCEEDED
    assert flagged(product, attribute, true) == members(product)


def test_strict_booleans(product: Product, binding: CohortBinding) -> None:
    product.sandbox.switch(boolean_spellings="strict")
    assert product.sync(binding).state == RunState.SUCCEEDED


def test_bad_rows_are_found_by_halving_and_the_good_ones_saved(
    product: Product, binding: CohortBinding
) -> None:
    fields = [
        {"name": "Contact Key", "type": "EmailAddress", "primary_key": True},
        {"name": "Purchasers", "type": "Boolean"},
    ]
    product.sandbox.door("PUT", ENGAGE, {"fields": fields})
    good = {f"person{n}@example.com" for n in range(60)}
    bad = {"not an address", "another"}
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": sorted(good | bad)})
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 60, 2)
    assert flagged(product) == good
    with product.ctx.db.read() as session:
        found = list(session.scalars(select(Rejection)))
    assert {row.key for row in found} == bad
    assert all(row.code and row.message and row.key not in row.message for row in found)
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": sorted(bad)})
    run = product.sync(binding)
    assert (run.state, run.rejected) == (RunState.SUCCEEDED, 0)


@pytest.mark.parametrize(
    "rule",
    [
        status(HUB, 400, {"message": "Unable to save rows", "errorcode": 10006}, nth=3),
        status(HUB, 500, "oops", nth=3),
        status(HUB, 429, {"errorcode": 50100}, nth=3, headers={"Retry-After": "2"}),
        status(HUB, 413, "too large", nth=3),
        {"path": HUB, "nth": 3, "action": {"kind": "reset_before"}},
        {"path": HUB, "nth": 3, "action": {"kind": "reset_after"}},
        {"path": HUB, "nth": 3, "action": {"kind": "expire_tokens"}},
    ],
    ids=lambda rule: f"{rule['action']['kind']}-{rule['action'].get('status', '')}",
)
def test_call_that_goes_wrong(product: Product, binding: CohortBinding, rule: dict[str, Any]) -> None:
    product.sandbox.fault(rule)
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.SUCCEEDED, len(members(product)), 0)
    assert flagged(product) == members(product)


def test_refusal_without_a_reason_that_stays_ends_at_single_rows(
    product: Product, binding: CohortBinding
) -> None:
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["a", "b"]})
    product.sandbox.fault(status(HUB, 400, {"message": "Unable to save rows", "errorcode": 10006}))
    run = product.sync(binding)
    assert (run.state, run.acknowledged, run.rejected) == (RunState.PARTIAL, 0, 2)


def test_worker_that_died_while_it_sent(product: Product, binding: CohortBinding) -> None:
    run_id = product.start(binding)
    product.work(run_id, until=Stage.PUSH)
    with product.ctx.db.write() as session:  # as its worker left it
        values = {"state": BatchState.SENDING, "sent_at": product.ctx.clock(), "attempts": 1}
        session.execute(update(PushBatch).where(PushBatch.run_id == run_id).values(values))
        session.execute(update(SyncRun).where(SyncRun.id == run_id).values(lease_until=product.ctx.clock()))
    assert product.work(run_id).state == RunState.SUCCEEDED
    assert flagged(product) == members(product)


def test_rows_that_may_be_saved_are_never_forgotten(product: Product, binding: CohortBinding) -> None:
    """The answer was lost and the run ended: who left meanwhile is still flagged, and has to be unflagged."""
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["a", "b"]})
    product.sandbox.fault({"path": HUB, "action": {"kind": "reset_after"}})
    product.ctx.settings.max_attempts = 1
    assert product.sync(binding).state == RunState.FAILED
    assert flagged(product) == {"a", "b"}
    product.sandbox.fault()
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": ["b"]})
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert flagged(product) == {"a"}


def test_account_without_synchronous_rows(product: Product, binding: CohortBinding) -> None:
    product.sandbox.switch(hub_available=False)
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.FAILED, "MC_SYNC_UNAVAILABLE")
    assert "--write-mode async" in (run.error_remedy or "")


def test_field_that_was_deleted_after_the_diff(product: Product, binding: CohortBinding) -> None:
    run_id = product.start(binding)
    product.work(run_id, until=Stage.PUSH)
    product.sandbox.door("PUT", ENGAGE, {"drop_fields": ["Purchasers"]})
    run = product.work(run_id)
    assert (run.state, run.error_code) == (RunState.FAILED, "ATTRIBUTE_MISSING")
