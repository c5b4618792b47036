"""The metrics of a running product after real syncs: what the database says, and what the vendor received."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from models.tables import SyncRun
from models.types import RunState
from tests.product import UPSERT, Product
from tests.scrape import Monitor, running_monitor
from tests.support import wait_until

COUNTERS = (
    "rows_acknowledged_total",
    "rows_rejected_total",
    "run_duration_seconds_count",
    "run_duration_seconds_sum",
)


@pytest.fixture
def monitor(product: Product, tmp_path: Path) -> Iterator[Monitor]:
    """`cohort-sync monitor` beside the running product."""
    with running_monitor(product.db.settings, tmp_path) as found:
        yield found


def test_metrics_agree_with_the_database_and_the_vendor(product: Product, monitor: Monitor) -> None:
    before = monitor.page()
    good, bad = product.bind(), product.bind("churnrk", "Churn Risk")
    product.succeeds(good)
    product.cohort("purchrs", churn={"exit": 30, "enter": 40, "seed": 5})
    last = product.succeeds(good)
    product.sandbox.fault(
        {
            "path": UPSERT,
            "action": {"kind": "row_errors", "rows": 5, "message": "The row was rejected.", "code": 2},
        }
    )
    refused = product.sync(bad)
    assert refused.state == RunState.PARTIAL
    wait_until(
        lambda: monitor.page()("schedulers") == 1, seconds=30
    )  # a flushed queue knows none until its next beat
    page = monitor.page()

    assert page.problems == set()
    assert page("bindings") == 2
    assert sum(page.by("runs_unfinished", "state").values()) == 0
    assert page("source_downloads_spent", source=product.name) == product.downloads() == 3
    for binding, attribute in ((good, "Purchasers"), (bad, "Churn Risk")):
        members = page("binding_members", binding=binding.name)
        assert members == product.binding(binding).member_count == len(product.flagged(attribute))
    of_good = {"binding": good.name}
    assert (page("binding_last_run_entered", **of_good), page("binding_last_run_exited", **of_good)) == (
        40,
        30,
    )
    assert last.finished_at
    assert page("binding_last_success_timestamp_seconds", **of_good) == last.finished_at.timestamp()
    assert page("binding_last_run_state", binding=bad.name, state="partial") == 1
    assert page("binding_last_run_rows_rejected", binding=bad.name) == 5
    assert page.by("needs", "code")["ROWS_REJECTED"] == 1

    with product.db.read() as session:
        totals = session.execute(
            select(func.sum(SyncRun.acknowledged), func.sum(SyncRun.rejected), func.count())
        ).one()
        states = dict(session.execute(select(SyncRun.state, func.count()).group_by(SyncRun.state)).all())
    grown = [(page(name) or 0) - (before(name) or 0) for name in COUNTERS]
    assert grown[:3] == list(totals)
    assert 0 < grown[3] < 60
    for state, runs in states.items():
        name = {"trigger": "manual", "state": state}
        assert (page("runs_finished_total", **name) or 0) - (
            before("runs_finished_total", **name) or 0
        ) == runs


def test_no_key_of_a_person_and_no_secret_is_shown(product: Product, monitor: Monitor) -> None:
    people = ["ada@example.com", "bob@example.com", "zoe@example.com"]
    product.cohort("purchrs", members=people)
    product.sandbox.fault(
        {"path": UPSERT, "action": {"kind": "row_errors", "rows": 1, "message": "no", "code": 2}}
    )
    assert product.sync(product.bind()).state == RunState.PARTIAL
    assert len(product.flagged("Purchasers")) == 2
    text = monitor.page().text
    assert "Purchasers" in text
    for hidden in (*people, "sandbox-api-key", "sandbox-secret-key", "sandbox-client", "example.com"):
        assert hidden not in text
