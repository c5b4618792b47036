"""`verify --repair`: the data extension is made what is stored, by a run like any other, and without a download."""

from __future__ import annotations

from typing import Any

import pytest

from models.tables import Snapshot
from models.types import RunState
from tests.acceptance.test_full_run import approve, large, settled, stored
from tests.acceptance.test_verify import ROWS, door, numbers, tamper, verify
from tests.product import Product
from worker.stages.snapshot_store import place_of


def test_repaired_to_what_is_stored_not_to_what_the_cohort_is_by_now(product: Product) -> None:
    binding = product.bind()
    product.succeeds(binding)
    members = product.flagged("Purchasers")
    product.cohort("purchrs", churn={"enter": 50, "exit": 50, "seed": 3})
    tamper(product)
    others, downloads = product.values("Trialers"), product.downloads()
    said = verify(product, binding, "--repair", "--yes", "--wait")
    assert numbers(said) == (len(members), len(members), 0, 0)
    run = said.json["run"]
    assert (run["state"], run["full"], run["trigger"]) == ("succeeded", True, "manual")
    assert (run["counts"]["members"], run["counts"]["entered"], run["counts"]["exited"]) == (
        len(members),
        2,
        3,
    )
    assert run["requests"]["amplitude"] == 0
    settled(product, binding, members)
    assert product.values("Trialers") == others
    assert product.downloads() == downloads
    following = product.succeeds(binding)
    assert (following.entered, following.exited) == (50, 50)
    product.equal("purchrs", "Purchasers")


def test_without_waiting_the_run_is_queued(product: Product) -> None:
    binding = product.bind()
    members = product.succeeds(binding).members
    tamper(product)
    said = verify(product, binding, "--repair", "--yes")
    assert numbers(said) == (members, members + 1, 2, 3)
    assert product.ended(said.json["run"]["id"]).state == RunState.SUCCEEDED
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_nothing_is_made_where_nothing_differs(embedded: Product) -> None:
    binding = embedded.bind()
    first = embedded.succeeds(binding)
    said = verify(embedded, binding, "--repair", "--yes", "--wait")
    assert said.code == 0
    assert "run" not in said.json
    assert embedded.binding(binding).member_count == first.members
    assert door(embedded)("verify", binding.name, "--wait").code == 2


@pytest.mark.parametrize(
    ("attribute", "true", "false"), [("Text Flag", "true", "false"), ("Number Flag", 1, 0)]
)
def test_by_the_type_of_the_field(embedded: Product, attribute: str, true: Any, false: Any) -> None:
    binding = embedded.bind("purchrs", attribute)
    members = embedded.succeeds(binding).members
    tamper(embedded, attribute, true=true, false=false)
    assert numbers(verify(embedded, binding, "--repair", "--yes", "--wait")) == (members, members, 0, 0)


def test_keys_with_spellings_of_their_own(embedded: Product) -> None:
    people = ["Ada", "bob ", "O'Hara", 'say "hi"', "a,b;c", "Zoë", "a\tTAB", "\ttab", "0" * 200]
    embedded.cohort("purchrs", members=people)
    binding = embedded.bind()
    embedded.succeeds(binding)
    embedded.sandbox.upsert([{"Contact Key": key.upper(), "Purchasers": False} for key in people[:4]])
    embedded.sandbox.door("DELETE", "rows", key=people[4:7])
    assert numbers(verify(embedded, binding)) == (9, 2, 7, 0)
    assert numbers(verify(embedded, binding, "--repair", "--yes", "--wait")) == (9, 9, 0, 0)


def test_a_guard_holds_it_too(embedded: Product) -> None:
    binding = embedded.bind(max_removal_percent=10)
    embedded.succeeds(binding)
    before = stored(embedded, binding)
    embedded.sandbox.upsert([{"Contact Key": f"s-{n}", "Purchasers": True} for n in range(300)])
    said = verify(embedded, binding, "--repair", "--yes", "--wait")
    assert (said.code, said.json["run"]["error"]["code"]) == (4, "REMOVAL_GUARD")
    assert stored(embedded, binding) == before
    assert verify(embedded, binding).json["extra"] == 300  # a held run is not at work
    assert approve(embedded, said.json["run"]["id"]).state == RunState.SUCCEEDED
    settled(embedded, binding, before)


def test_a_binding_that_never_synced_removes_nobody_unasked(embedded: Product) -> None:
    binding = embedded.bind(max_removal_percent=None)
    embedded.sandbox.upsert([{"Contact Key": f"s-{n}", "Purchasers": True} for n in range(1_500)])
    said = verify(embedded, binding, "--repair", "--yes", "--wait")
    assert (said.code, said.json["run"]["error"]["code"]) == (4, "EMPTY_GUARD")
    assert len(embedded.flagged("Purchasers")) == 1_500


def test_a_binding_fed_by_webhook(embedded: Product) -> None:
    """What the webhook told stays as it is: the state is the target, not a file that the next run would undo."""
    from models.setup import bindings
    from tests.product import ACTOR, utc_now

    binding = embedded.bind()
    members = embedded.succeeds(binding).members
    with embedded.db.write() as session:
        bindings.update_binding(session, binding.name, feed="webhook", now=utc_now(), actor=ACTOR)
    tamper(embedded)
    assert numbers(verify(embedded, binding, "--repair", "--yes", "--wait")) == (members, members, 0, 0)


def test_the_vendor_is_away_in_between(product: Product) -> None:
    """The target stays the state of before, however often the run begins anew."""
    binding = large(product)
    before = stored(product, binding)
    said = verify(product, binding)
    fault = {"path": ROWS, "nth": [7, 10], "action": {"kind": "status", "status": 503}}
    product.sandbox.fault(fault)
    said = verify(product, binding, "--repair", "--yes", "--wait")
    assert numbers(said) == (9_000, 9_000, 0, 0)
    assert product.sandbox.door("GET", "faults")["faults"][0]["fired"] == 2
    settled(product, binding, before)
    with product.db.read() as session:
        snapshot = session.get_one(Snapshot, product.run(said.json["run"]["id"]).snapshot_id)
    assert snapshot.kind == "state"
    assert not place_of(product.db.settings.data_dir, snapshot).exists()
