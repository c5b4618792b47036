"""The main job, end to end, on both ways it is deployed: a cohort's members are flagged, and nobody else."""

from __future__ import annotations

import orjson
import pytest

from models.errors import ConfigurationError
from models.setup import bindings
from models.setup.bindings import Timing
from models.types import RunState, Trigger
from tests.product import A_SECOND_LOOK, ACTOR, Product, utc_now


@pytest.fixture
def product(product: Product) -> Product:
    """Every run of the main job leaves its worker while the vendor makes the cohort file, and is woken."""
    product.sandbox.switch(**A_SECOND_LOOK)
    return product


def test_first_sync_change_and_no_change(product: Product) -> None:
    binding = product.bind()
    first = product.succeeds(binding)
    members = set(product.sandbox.members("purchrs"))
    product.equal("purchrs", "Purchasers")
    assert (first.entered, first.exited, first.acknowledged) == (len(members), 0, len(members))
    assert (first.snapshot_rows, first.members, first.blank) == (600, len(members), 600 - len(members))
    assert product.binding(binding).member_count == len(members)

    product.cohort("purchrs", churn={"exit": 30, "enter": 40, "seed": 5})
    second = product.succeeds(binding)
    now = set(product.sandbox.members("purchrs"))
    product.equal("purchrs", "Purchasers")
    assert (second.entered, second.exited, second.acknowledged) == (40, 30, 70)
    assert all(product.values("Purchasers")[key] is False for key in members - now)
    assert product.binding(binding).member_count == len(now)

    before = product.requests()[-1]["seq"]
    third = product.succeeds(binding)
    assert (third.entered, third.exited, third.members) == (0, 0, len(now))
    assert third.marketing_cloud_requests == 0
    assert product.requests(vendor="marketing_cloud", since=before) == []
    assert product.downloads() == 3


def test_a_cohort_that_was_left_half_way_and_is_as_before(product: Product) -> None:
    """The file of the last good run is no proof that nothing is to be done: a run in between changed rows."""
    binding = product.bind()
    product.succeeds(binding)
    before = product.sandbox.members("purchrs")
    product.cohort("purchrs", churn={"exit": 10, "enter": 10, "seed": 5})
    product.sandbox.fault(
        {"path": "/status", "action": {"kind": "status", "status": 403, "body": {"message": "no"}}}
    )
    assert product.sync(binding).state == RunState.FAILED
    product.sandbox.fault()
    product.cohort("purchrs", members=before)
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")


def test_two_bindings_of_one_data_extension(product: Product) -> None:
    """Each writes its own field; a contact of both cohorts keeps both flags."""
    product.sandbox.switch(async_execute_seconds=0.1)
    pair = [product.bind(), product.bind("churnrk", "Churn Risk")]
    for _ in range(2):
        for run_id in [product.start(binding) for binding in pair]:
            assert product.ended(run_id).state == RunState.SUCCEEDED
        product.equal("purchrs", "Purchasers")
        product.equal("churnrk", "Churn Risk")
        product.cohort("purchrs", churn={"exit": 50, "enter": 20, "seed": 1})
        product.cohort("churnrk", churn={"exit": 20, "enter": 50, "seed": 2})
    both = product.flagged("Purchasers") & product.flagged("Churn Risk")
    assert len(both) > 100
    assert product.most_in_flight() <= 2


def test_bindings_due_together_share_one_download(product: Product) -> None:
    pair = [product.bind(), product.bind("purchrs", "Trialers")]
    due = utc_now()
    started = [product.start(b, trigger=Trigger.SCHEDULE, scheduled_for=due) for b in pair]
    assert [product.ended(run_id).state for run_id in started] == [RunState.SUCCEEDED] * 2
    product.equal("purchrs", "Purchasers")
    product.equal("purchrs", "Trialers")
    assert product.downloads() == 1


@pytest.mark.parametrize(("attribute", "values"), [("Text Flag", {"true", "false"}), ("Number Flag", {1, 0})])
def test_the_value_follows_the_type_of_the_field(
    product: Product, attribute: str, values: set[object]
) -> None:
    binding = product.bind("purchrs", attribute)
    product.succeeds(binding)
    product.cohort("purchrs", churn={"exit": 7, "seed": 1})
    product.succeeds(binding)
    product.equal("purchrs", attribute)
    assert set(product.values(attribute).values()) == values
    sent = {item[attribute] for line in bodies(product) for item in line}
    assert {type(value) for value in sent} == {type(value) for value in values}


def bodies(product: Product) -> list[list[dict[str, object]]]:
    """The rows of every upsert that was small enough to be kept."""
    return [orjson.loads(line["body"])["items"] for line in product.puts(bodies="1") if line["body"]]


def test_a_user_property_is_the_contact_key(product: Product) -> None:
    product.destination("by mail", "gp:email")
    binding = product.bind(destination="by mail")
    run = product.succeeds(binding)
    asked = product.requests("/api/5/cohorts/request/")[0]["path"]
    assert "props=1" in asked
    assert "propKeys=email" in asked
    keys = product.flagged("Purchasers")
    assert len(keys) == run.members == run.entered > 500
    assert all("@" in key for key in keys)


AWKWARD = ["Ada", "bob ", "O'Hara", 'say "hi"', "a,b;c", "Zoë", "ключ", "🦊", "50%", "a/b:c", "a\tTAB"]


def test_keys_are_pushed_as_they_came(product: Product) -> None:
    """Marketing Cloud compares without case; who leaves gets the text that was pushed for them."""
    product.cohort("purchrs", members=AWKWARD)
    binding = product.bind()
    product.succeeds(binding)
    assert {item["Contact Key"] for item in bodies(product)[0]} == set(AWKWARD)
    product.cohort("purchrs", members=["ADA", *AWKWARD[1:]])
    same = product.succeeds(binding)
    assert (same.entered, same.exited) == (0, 0)  # the same contact
    product.cohort("purchrs", members=["bob "])
    product.succeeds(binding)
    left = {item["Contact Key"] for item in bodies(product)[-1]}
    assert left == set(AWKWARD) - {"bob "}
    assert product.flagged("Purchasers") == {"bob "}


def test_a_missing_attribute_fails_before_anything_is_pushed(product: Product) -> None:
    binding = product.bind("purchrs", "No Such Field")
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.FAILED, "ATTRIBUTE_MISSING")
    assert product.puts() == []
    assert product.sandbox.rows() == []
    assert product.binding(binding).attribute_locked_at is None
    product.sandbox.door(
        "PUT",
        "data-extensions/Amplitude Engage",
        {"add_fields": [{"name": "No Such Field", "type": "Boolean"}]},
    )
    product.succeeds(binding)
    product.equal("purchrs", "No Such Field")


def test_a_field_that_can_hold_no_flag_is_refused(product: Product) -> None:
    run = product.sync(product.bind("purchrs", "Last Seen"))
    assert (run.state, run.error_code) == (RunState.FAILED, "ATTRIBUTE_TYPE")
    assert product.puts() == []


def test_an_attribute_is_locked_by_its_first_sync(product: Product) -> None:
    binding = product.bind()
    product.succeeds(binding)
    for change in ({"attribute": "Trialers"}, {"cohort_id": "churnrk"}):
        with pytest.raises(ConfigurationError, match="ATTRIBUTE_LOCKED"), product.db.write() as session:
            bindings.update_binding(session, binding.name, now=utc_now(), actor=ACTOR, **change)
    with pytest.raises(ConfigurationError, match="ATTRIBUTE_TAKEN"):
        product.bind("churnrk", "PURCHASERS")


def test_a_growth_plan_runs_on_demand_only(product: Product) -> None:
    from models.setup import sources
    from models.types import Tier

    with product.db.write() as session:
        sources.update_source(
            session, product.db.keyring, product.name, tier=Tier.GROWTH, now=utc_now(), actor=ACTOR
        )
    with pytest.raises(ConfigurationError, match="PLAN_ON_DEMAND_ONLY"):
        product.bind(timing=Timing(cron="0 6 * * *"))
    product.succeeds(product.bind())


def test_a_message_delivered_again_and_again_is_one_run(product: Product) -> None:
    from config.queue import publish

    binding = product.bind()
    run_id = product.start(binding)
    for stage in ("snapshot", "snapshot", "diff", "push", "finish", "push"):
        publish(product.app, run_id, stage)
    run = product.ended(run_id)
    assert (run.state, run.acknowledged) == (RunState.SUCCEEDED, run.members)
    assert product.downloads() == 1
    assert len(product.puts()) == 1


def test_a_guard_holds_a_run_until_a_person_says_so(product: Product) -> None:
    from config.queue import publish
    from models.runs import decisions

    binding = product.bind(max_removal_percent=10)
    product.succeeds(binding)
    product.cohort("purchrs", churn={"exit": 300, "seed": 5})
    pushed = len(product.puts())
    held = product.until(product.start(binding), state=RunState.HELD)
    assert held.error_code == "REMOVAL_GUARD"
    assert len(product.puts()) == pushed
    with product.db.write() as session:
        approved = decisions.approve(session, held.id, now=utc_now(), actor=ACTOR)
    publish(product.app, approved.id, approved.stage)
    assert product.ended(held.id).state == RunState.SUCCEEDED
    product.equal("purchrs", "Purchasers")


def test_fifty_thousand_members(product: Product) -> None:
    """More than one batch, in flight beside each other, never more than two."""
    product.cohort("purchrs", generate={"count": 50_000, "seed": 9})
    run = product.succeeds(product.bind())
    assert run.entered == run.acknowledged == 50_000
    assert len(product.puts()) == 2
    product.equal("purchrs", "Purchasers")
    assert product.most_in_flight() <= 2
