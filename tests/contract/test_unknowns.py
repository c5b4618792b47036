"""What nobody could establish about the vendors is a switch: a run comes to the same end in every position."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from models.contact_keys.comparison import comparison_key
from models.types import RunState
from sandbox.marketing_cloud.data_extension import collated
from sandbox.switches import Switches
from tests.contract.product import Product

# Odd on purpose: spellings, what a formula or a path would take apart, an anonymous person, one who is twice there.
MEMBERS: list[Any] = [
    "plain",
    "Upper@Example.com",
    "with space",
    "colon:comma,slash/percent%",
    "+441234",
    "=1+1",
    'quo"te',
    "ünïcode-ключ-鍵",
    "🙂",
    {"user_id": "twice", "amplitude_id": 1},
    {"user_id": "TWICE ", "amplitude_id": 2},
    {"user_id": "", "amplitude_id": 3},
]
# Switches that shape answers to questions the product does not ask, and numbers that are no matter of opinion.
NOT_ASKED = {
    "unknown_scope": "no scope is asked for: all of the package's come",
    "rowset_filter": "no filter is sent",
    "search_lag_seconds": "the search is asked only for its 403",
    "sync_null": "no null is sent",
    "amplitude_membership_seconds": "membership is never changed",
}
# All at once, so that a run in each costs two seconds and not a minute; a position left out is turned elsewhere.
OTHERS: dict[str, Any] = {
    "amplitude_polls_count": False,
    "amplitude_count_group": "text",
    "amplitude_archived_request": "refused",
    "csv_gzip": "bare",
    "csv_tab": True,
    "csv_order": "shuffled",
    "async_order": "parallel",
    "async_complete_word": "Completed",
    "async_not_found_key": "resultMessage",
    "async_no_primary_key": "rejected",
    "unknown_column": "reject_batch",
    "field_names": "ignore_case",
    "key_matching": "exact",
    "duplicate_keys": "row_error",
    "empty_key": "stored",
    "boolean_spellings": "strict",
    "boolean_read_back": "true",
    "error_code_form": "string",
    "results_page_size": 3,
    "inflight_action": "deadlock",
    "soap_missing_scope": "fault",
}
STRANGEST = OTHERS | {"csv_gzip": "off", "boolean_read_back": "1", "unknown_column": "job_error"}


@pytest.mark.parametrize("positions", [{}, OTHERS, STRANGEST], ids=["defaults", "others", "strangest"])
def test_a_run_ends_the_same(product: Product, positions: dict[str, Any]) -> None:
    product.sandbox.switch(async_absent_seconds=0.05, **positions)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": MEMBERS})
    product.source()
    product.destination()
    binding = product.binding(attribute="PURCHASERS", max_removal_percent=100)
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.SUCCEEDED, None), run.error_message
    assert (run.members, run.acknowledged, run.rejected) == (10, 10, 0)
    assert flagged(product) == expected(product)
    cloud = product.marketing_cloud(binding.destination)
    read = {comparison_key(key): row["purchasers"] for key, row in cloud.rows(product.sandbox.key)}
    assert {key for key, value in read.items() if value.lower() in {"true", "1"}} == expected(product)
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": ["plain", "=1+1"]})
    assert product.sync(binding).state == RunState.SUCCEEDED
    assert flagged(product) == expected(product)


TWINS = [
    ("jos\u00e9@x.example", "jose\u0301@x.example"),
    ("user-7", "\uff55ser-7"),
    ("user-8", "user\u200b-8"),
    ("\u304b", "\u30ab"),
]


@pytest.mark.parametrize("matching", ["collation", "database", "exact"])
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_nobody_is_unflagged_because_a_twin_left(product: Product, matching: str, mode: str) -> None:
    """Whatever the collation takes for one row: who stays is flagged, and who left with a twin is once both left."""
    product.sandbox.switch(key_matching=matching)
    product.source()
    product.destination(write_mode=mode)
    binding = product.binding(max_removal_percent=100)
    stay, leave = [first for first, _ in TWINS], [second for _, second in TWINS]
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": [*stay, *leave, "gone"]})
    assert product.sync(binding).state == RunState.SUCCEEDED
    for first, last in ((stay, leave), (leave, stay)):
        product.sandbox.door("PUT", "cohorts/purchrs", {"members": first})
        run = product.sync(binding)
        assert (run.state, run.spared) == (RunState.SUCCEEDED, len(last))
        names = {collated(row["Contact Key"]) for row in product.sandbox.rows() if row["Purchasers"]}
        assert names == {collated(key) for key in first}
        assert "gone" not in names
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["somebody"]})
    run = product.sync(binding)
    assert (run.spared, run.exited) == (0, 2 * len(TWINS))
    assert flagged(product) == {"somebody"}


def flagged(product: Product) -> set[str]:
    return {comparison_key(row["Contact Key"]) for row in product.sandbox.rows() if row["Purchasers"]}


def expected(product: Product) -> set[str]:
    return {comparison_key(key) for key in product.sandbox.members("purchrs")}


def test_four_parallel_requests_may_mean_four_started_ones(product: Product) -> None:
    """Then the vendor says so with a 429, which costs no attempt: the run goes on when the minute is over."""
    product.sandbox.switch(amplitude_parallel=1, amplitude_parallel_meaning="started")
    product.source()
    product.destination()
    assert product.sync(product.binding()).state == RunState.SUCCEEDED
    run_id = product.start(product.binding(cohort_id="churnrk", attribute="Churn Risk"))
    run = product.claim(run_id)
    assert (run.state, run.error_code, run.attempt) == (RunState.WAITING, "AMPLITUDE_RATE_LIMITED", 0)
    product.sandbox.advance(61)
    assert product.work(run_id).state == RunState.SUCCEEDED
    assert product.sandbox.door("GET", "state")["amplitude"]["downloads_used"] == 2


def test_a_request_that_computes_nothing_is_late_and_never_wrong(product: Product) -> None:
    """`lastComputed` decides nothing: whatever comes is compared, and the change comes with the next computation."""
    product.sandbox.switch(amplitude_request_computes=False)
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["a", "b"]})
    product.source()
    product.destination()
    binding = product.binding(max_removal_percent=100)
    product.sync(binding)
    product.sandbox.door("PUT", "cohorts/purchrs", {"exit": ["b"]})
    assert product.sync(binding).exited == 0
    product.sandbox.door("PUT", "cohorts/purchrs", {"members": ["a"]})
    assert product.sync(binding).exited == 1
    assert flagged(product) == {"a"}


def test_no_unknown_is_left_out() -> None:
    """Every switch with positions is turned in a contract test of the product, or is said not to matter."""
    here = Path(__file__).parent
    ours = (
        "test_amplitude_client",
        "test_marketing_cloud_client",
        "test_check",
        "test_sync_rows",
        "test_unknowns",
        "../acceptance/test_webhook_trust",
    )
    text = "".join((here / f"{name}.py").read_text() for name in ours)
    open_ones = [f.name for f in fields(Switches) if f.metadata["choices"] or type(f.default) is bool]
    assert [name for name in open_ones if name not in text and name not in NOT_ASKED] == []
