"""Senders that fail as Amplitude does: flags are never wrong in silence, and a download or a new sync mends them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from models.tables import CohortList
from models.types import Feed, Reconcile, RunState, Trigger
from tests.contract.product import status
from tests.integration.door import Door
from tests.product import Product
from tests.receivers import message
from tests.support import wait_until
from tests.told import Told, telling

LIST = r"^/api/3/cohorts$"


@pytest.fixture
def told(product: Product, tmp_path: Path) -> Iterator[Told]:
    with telling(product, tmp_path) as told:
        yield told


def door(told: Told) -> Door:
    settings = told.product.db.settings
    return Door(settings, settings.data_dir)


def flagged_by_download(told: Told) -> None:
    """The binding has the cohort's members already, and its list begins with the next sync."""
    told.feed(Feed.DOWNLOAD)
    told.product.succeeds(told.binding)
    told.feed(Feed.WEBHOOK)


@pytest.mark.parametrize("trigger", [Trigger.SCHEDULE, Trigger.MANUAL])
def test_half_a_first_sync_removes_nobody(told: Told, trigger: Trigger) -> None:
    product = told.product
    flagged_by_download(told)
    told.quota(0)
    told.sync(deliver=9)
    told.pass_by()
    run_id = product.start(told.binding, trigger=trigger)
    told.shown_as(run_id, "WEBHOOK_UNPROVEN", listed=360)
    assert not told.sync(deliver=12)["succeeded"]  # a day later it begins again, and breaks off later
    told.pass_by()
    told.shown_as(run_id, "WEBHOOK_UNPROVEN", listed=480)
    product.equal("purchrs", "Purchasers")
    assert told.sync()["succeeded"]
    told.pass_by()
    product.wake(run_id)
    ended = product.ended(run_id)  # it looks at its list again by itself
    assert (ended.state, ended.exited) == (RunState.SUCCEEDED, 0)
    product.equal("purchrs", "Purchasers")


def test_half_a_first_sync_is_made_whole_by_a_download(told: Told) -> None:
    product = told.product
    flagged_by_download(told)
    told.sync(deliver=9)
    told.pass_by()
    before = product.downloads()
    run = product.succeeds(told.binding, trigger=Trigger.SCHEDULE)
    assert (run.exited, run.reconcile, product.downloads() - before) == (0, "itself", 1)
    product.equal("purchrs", "Purchasers")
    assert told.list().doubts == {}
    product.cohort("purchrs", churn={"exit": 30, "enter": 20, "seed": 3})
    told.sync()
    run = product.succeeds(told.binding)  # the sync told the whole cohort: no second download is needed
    assert (run.exited, product.downloads() - before) == (30, 1)
    product.equal("purchrs", "Purchasers")


@pytest.mark.parametrize("deliver", [1, 2])
def test_a_sync_that_failed_half_way_leaves_no_ghosts(told: Told, deliver: int) -> None:
    """Who entered in it and left before the next one is never named again."""
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    product.cohort("purchrs", churn={"exit": 50, "enter": 50, "seed": 4})
    assert not told.sync(deliver=deliver)["succeeded"]
    product.succeeds(told.binding)  # it is still coming in: what it says is true so far
    product.cohort("purchrs", exit=product.sandbox.members("purchrs")[-45:])
    assert told.sync()["succeeded"]
    told.pass_by()
    before = product.downloads()
    run = product.succeeds(told.binding)
    assert (run.reconcile, product.downloads() - before) == ("itself", 1)
    product.equal("purchrs", "Purchasers")


def test_a_list_in_doubt_holds_what_would_remove_and_says_so(told: Told) -> None:
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    told.quota(0)
    product.cohort("purchrs", churn={"exit": 100, "enter": 100, "seed": 4})
    told.sync("lose")
    told.pass_by()
    run_id = product.start(told.binding)
    held = product.until(run_id, state=RunState.HELD)
    assert held.error_code in {"WEBHOOK_GAP", "WEBHOOK_SIZE"}
    assert "reconcile" in (held.error_remedy or "")
    needs = door(told).ok("status", "--json").json["needs"]
    assert any(need["code"] == held.error_code for need in needs)
    planned = door(told)("plan", told.binding.name, "--json")
    assert (planned.code, planned.json["guard"]["code"]) == (4, held.error_code)
    told.quota(500)
    said = door(told).ok("reconcile", told.binding.name, "--wait", "--json").json
    assert (said["id"], said["state"]) == (run_id, "succeeded")
    product.equal("purchrs", "Purchasers")
    needs = door(told).ok("status", "--json").json["needs"]
    assert not [need for need in needs if need["about"] == told.binding.name]


def test_a_first_sync_begun_again(told: Told) -> None:
    """What its first attempt told stays told: who left in between would be kept."""
    product = told.product
    assert not told.sync(deliver=13)["succeeded"]
    product.succeeds(told.binding)
    product.cohort("purchrs", exit=product.sandbox.members("purchrs")[:20])
    assert told.sync()["succeeded"]
    told.pass_by()
    product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")


def test_a_sync_made_anew_has_no_window(told: Told) -> None:
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    product.cohort("purchrs", churn={"exit": 80, "enter": 90, "seed": 5})
    sync = told.sync("late")
    assert sync["kept_back"] > 0
    wait_until(lambda: time.time() > sync["computed_time"] + 1, seconds=10)
    asked = ("reconcile", told.binding.name, "--new-sync")
    assert door(told)(*asked, "--json").error == "UNCONFIRMED"
    steps = door(told).ok(*asked, "--yes").out
    assert "Delete its sync" in steps
    assert product.sync(told.binding).error_code == "WEBHOOK_NO_MESSAGE"
    late = message(["somebody"], computed_time=str(int(told.list().created_at.timestamp()) - 1))
    answer = told.receiver.post(product.name, told.secret, late)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "WEBHOOK_FORGOTTEN")
    assert told.sync(anew=True, retries=0)["answers"]["409"] > 0  # what the old sync had kept back
    assert told.sync(anew=True)["succeeded"]
    told.pass_by()
    product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")


def test_the_feed_switched_off_and_on_has_no_window(told: Told) -> None:
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    told.feed(Feed.DOWNLOAD)
    told.feed(Feed.WEBHOOK)
    late = message(["somebody"], computed_time=str(int(told.list().created_at.timestamp()) - 1))
    assert told.receiver.post(product.name, told.secret, late).status_code == 409
    assert told.messages() == 0
    product.equal("purchrs", "Purchasers")


def test_two_syncs_of_one_second(told: Told) -> None:
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    product.cohort("purchrs", enter=["moment"])
    told.sync()
    product.cohort("purchrs", exit=["moment"])
    told.sync("same-second")
    product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")


@pytest.mark.parametrize("tells", ["nothing", "message"])
def test_a_cohort_that_is_empty_when_its_sync_is_made_anew(told: Told, tells: str) -> None:
    product = told.product
    product.sandbox.switch(webhook_empty_sync=tells)
    told.sync()
    product.succeeds(told.binding)
    product.cohort("purchrs", members=[])
    door(told).ok("reconcile", told.binding.name, "--new-sync", "--yes")
    assert told.sync(anew=True)["messages"] == (tells == "message")
    if tells == "nothing":
        product.sync(told.binding, trigger=Trigger.SCHEDULE)
        needs = door(told).ok("status", "--json").json["needs"]
        assert [need["code"] for need in needs if need["about"] == told.binding.name] == [
            "WEBHOOK_NO_MESSAGE"
        ]
        door(told).ok("reconcile", told.binding.name, "--wait")
    else:
        told.pass_by()
        product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")
    assert product.binding(told.binding).member_count == 0


def test_what_was_refused_and_never_came_is_a_doubt(told: Told) -> None:
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    told.quota(0)
    broken = {**message(["a"]), "users": [{"user_id": "a"}, "no object"]}
    assert told.receiver.post(product.name, told.secret, broken).status_code == 400
    gone = product.sandbox.members("purchrs")[:5]
    product.cohort("purchrs", exit=gone)
    told.sync()
    with product.db.write() as session:
        told.refused_ago(session, minutes=6)
    held = product.until(product.start(told.binding), state=RunState.HELD)
    assert held.error_code == "WEBHOOK_MESSAGE_REFUSED"
    assert told.receiver.post(product.name, told.secret, {**broken, "users": []}).status_code == 200
    told.pass_by()
    assert product.ended(held.id).state == RunState.SUCCEEDED
    product.equal("purchrs", "Purchasers")


def codes(told: Told) -> list[str]:
    """What `status` names of the binding."""
    needs = door(told).ok("status", "--json").json["needs"]
    return [need["code"] for need in needs if need["about"] == told.binding.name]


@pytest.mark.parametrize("target", ["webhook", "custom", "absent"])
def test_a_sync_that_amplitude_says_failed_is_doubted(told: Told, target: str) -> None:
    product = told.product
    product.sandbox.switch(webhook_sync_info=target)
    told.sync()
    product.succeeds(told.binding)
    told.quota(0)
    product.cohort("purchrs", churn={"exit": 9, "enter": 9, "seed": 3})
    assert told.sync(deliver=0)["answers"] == {}
    told.pass_by()
    product.succeeds(told.binding)
    if target == "absent":
        assert codes(told) == []  # docs/webhooks.md, Limits
        return
    assert codes(told) == ["WEBHOOK_SYNC_FAILED"]
    told.quota(500)
    told.pass_by()
    assert product.succeeds(told.binding).reconcile == "itself"
    product.equal("purchrs", "Purchasers")
    assert codes(told) == []


def test_a_sync_that_failed_is_forgiven_when_the_next_one_succeeds(told: Told) -> None:
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    told.quota(0)
    product.cohort("purchrs", churn={"exit": 9, "enter": 9, "seed": 3})
    told.sync(deliver=0)
    told.pass_by()
    product.succeeds(told.binding)
    assert told.sync()["succeeded"]
    told.pass_by()
    product.succeeds(told.binding)
    product.equal("purchrs", "Purchasers")
    assert codes(told) == []


def test_what_shows_no_sign_is_mended_after_thirty_days(told: Told) -> None:
    """As many wrong members as missing ones, of which Amplitude says nothing."""
    product = told.product
    product.sandbox.switch(webhook_sync_info="absent")
    told.sync()
    product.succeeds(told.binding)
    product.cohort("purchrs", churn={"exit": 9, "enter": 9, "seed": 3})
    told.pass_by(days=29)
    assert product.succeeds(told.binding, trigger=Trigger.SCHEDULE).reconcile is None
    assert codes(told) == []
    with product.db.write() as session:
        session.get_one(CohortList, told.list().id).created_at -= timedelta(days=31)
    run = product.succeeds(told.binding, trigger=Trigger.SCHEDULE)
    assert (run.reconcile, run.entered, run.exited) == (Reconcile.ITSELF, 9, 9)
    product.equal("purchrs", "Purchasers")


def test_a_size_that_differed_is_doubted_until_one_agrees(told: Told) -> None:
    """A sync that has nothing to say proves nothing, whatever the cohort counts by then."""
    product = told.product
    told.sync()
    product.succeeds(told.binding)
    told.quota(0)
    product.sandbox.switch(webhook_sync_info="absent")
    product.cohort("purchrs", churn={"exit": 0, "enter": 50, "seed": 3})
    told.sync(deliver=1)
    told.pass_by()
    product.sync(told.binding)
    assert codes(told) == ["WEBHOOK_SIZE"]
    product.sandbox.door("PUT", "cohorts/purchrs", {"last_computed": int(time.time()) + 600})
    told.pass_by()
    product.sync(told.binding)
    assert codes(told) == ["WEBHOOK_SIZE"]
    told.sync()
    told.pass_by()
    product.sync(told.binding)
    assert "WEBHOOK_SIZE" not in codes(told)


def test_an_account_without_sync_information_still_gives_sizes(told: Told) -> None:
    product = told.product
    people = told.sync()["entered"]
    product.sandbox.fault(status(LIST, 403, "forbidden", times=1))
    product.succeeds(told.binding)
    assert told.list().size == people
