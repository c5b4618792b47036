"""Full runs: the data extension is read first, and afterwards it and the state are the target, whatever stood there.

Somebody tampers with the data extension behind our back, the vendor fails while it is read, the worker is killed.
"""

from __future__ import annotations

import random
from typing import Any

import psutil
import pytest

from models.contact_keys.codec import decode_keys
from models.runs import decisions
from models.tables import CohortBinding, SyncRun
from models.types import BatchState, RunState, Stage
from tests.acceptance.test_verify import FAULTS, ROWS, door, numbers, tamper, verify
from tests.product import ACTOR, UPSERT, Product, equal_keys, utc_now
from tests.support import wait_until
from worker.membership.compaction import compact
from worker.stages.diff import reader


def stored(product: Product, binding: CohortBinding) -> set[str]:
    """The members of the state, as the next diff would read them."""
    known = reader(product.db, binding)
    work = product.db.settings.data_dir / "work"
    work.mkdir(exist_ok=True)
    return {
        key for _, blob in compact(known.chunks(), known.deltas(), workdir=work) for key in decode_keys(blob)
    }


def settled(product: Product, binding: CohortBinding, target: set[str]) -> None:
    """The attribute, the state and the count are the target, and `verify` says so."""
    assert product.flagged(binding.attribute) == target
    assert equal_keys(stored(product, binding), target)
    assert product.binding(binding).member_count == len(target)
    assert numbers(verify(product, binding)) == (len(target), len(target), 0, 0)


def last(product: Product) -> int:
    seq: int = product.requests()[-1]["seq"]
    return seq


def test_what_was_tampered_with_is_put_right(product: Product) -> None:
    binding = product.bind()
    product.succeeds(binding)
    members = set(product.sandbox.members("purchrs"))
    tamper(product)
    others = product.values("Trialers")
    ordinary = product.succeeds(binding)
    assert (ordinary.entered, ordinary.exited) == (0, 0)  # the same file: nothing is known of it
    full = product.succeeds(binding, full=True)
    assert (full.entered, full.exited, full.acknowledged) == (2, 3, 5)
    assert full.members == len(members)
    settled(product, binding, members)
    assert product.values("Trialers") == others
    again = product.succeeds(binding, full=True)
    assert (again.entered, again.exited, again.marketing_cloud_requests > 0) == (0, 0, True)


@pytest.mark.parametrize(
    ("attribute", "true", "false", "seed"),
    [("Purchasers", True, False, 1), ("Text Flag", "true", "false", 2), ("Number Flag", 1, 0, 3)],
)
def test_any_three_sets_come_to_the_target(
    product: Product, attribute: str, true: Any, false: Any, seed: int
) -> None:
    """State, data extension and target at random: the counts are the rule's, and in the end all three are equal."""
    rng = random.Random(seed)
    people = [f"Person-{n}" if n % 3 else f"person {n} x" for n in range(120)]
    state, there, target = ({p for p in people if rng.random() < 0.5} for _ in range(3))
    binding = product.bind("purchrs", attribute)
    product.succeeds(binding, snapshot_id=product.file(binding, state))
    product.sandbox.upsert(
        [{"Contact Key": p, attribute: true if p in there else false} for p in people[:90]]
    )
    product.sandbox.door("DELETE", "rows", key=[p for p in people[90:] if p in state])
    there &= set(people[:90])
    full = product.succeeds(
        binding, full=True, snapshot_id=product.file(binding, {p.upper() + "  " for p in target})
    )
    assert (full.entered, full.exited) == (len(target - there), len((there | state) - target))
    assert equal_keys(product.flagged(attribute), target)
    assert equal_keys(stored(product, binding), target)
    assert product.binding(binding).member_count == len(target)
    assert numbers(verify(product, binding)) == (len(target), len(target), 0, 0)


def test_flags_that_stand_there_already_are_taken_over_without_a_push(product: Product) -> None:
    """As after another tool has synced the same cohort for years."""
    members = product.sandbox.members("purchrs")
    product.sandbox.upsert([{"Contact Key": key, "Purchasers": True} for key in members])
    binding = product.bind()
    before = len(product.puts())
    full = product.succeeds(binding, full=True)
    assert (full.entered, full.exited, full.members) == (0, 0, len(members))
    assert len(product.puts()) == before
    settled(product, binding, set(members))
    assert product.binding(binding).attribute_locked_at is not None
    product.cohort("purchrs", churn={"exit": 20, "seed": 1})
    assert product.succeeds(binding).exited == 20
    product.equal("purchrs", "Purchasers")


def test_an_empty_data_extension_is_filled(product: Product) -> None:
    binding = product.bind()
    members = product.succeeds(binding).members
    product.sandbox.door("DELETE", "rows")
    full = product.succeeds(binding, full=True)
    assert (full.entered, full.exited) == (members, 0)
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_fifty_thousand_by_the_command(product: Product) -> None:
    product.cohort("purchrs", generate={"count": 50_000, "seed": 9})
    binding = product.bind()
    product.succeeds(binding)
    tamper(product)
    said = door(product)("run", binding.name, "--full", "--wait", "--json")
    assert said.code == 0, said.err
    assert (said.json["full"], said.json["counts"]["entered"], said.json["counts"]["exited"]) == (True, 2, 3)
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_rows_that_are_refused_stay_out_and_are_counted_exactly(product: Product) -> None:
    """Members who are pushed anew are acknowledged twice, and are one member each all the same."""
    binding = product.bind()
    members = product.succeeds(binding).members
    there = sorted(product.flagged("Purchasers"))
    product.sandbox.upsert([{"Contact Key": key, "Purchasers": False} for key in there[:50]])
    product.sandbox.door("PUT", "faults", {"presets": ["mc-row-errors"]})
    product.cohort("purchrs", churn={"enter": 30, "seed": 2})
    full = product.sync(binding, full=True)
    assert full.state == RunState.PARTIAL
    assert full.entered == 80
    assert full.rejected > 0
    product.sandbox.fault()
    assert product.binding(binding).member_count == len(stored(product, binding)) <= members + 30
    product.succeeds(binding, full=True)
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_one_that_fails_leaves_what_it_found_to_the_next_run(product: Product) -> None:
    """What nobody knew of is state from the plan on: an ordinary run removes it."""
    binding = product.bind()
    product.succeeds(binding)
    tamper(product)
    product.sandbox.fault(
        {"path": UPSERT, "action": {"kind": "status", "status": 403, "body": {"errorcode": 20002}}}
    )
    assert product.sync(binding, full=True).error_code == "MC_FORBIDDEN"
    product.sandbox.fault()
    following = product.succeeds(binding)
    assert (following.entered, following.exited) == (0, 3)
    members = len(product.sandbox.members("purchrs"))
    assert numbers(verify(product, binding)) == (members, members - 2, 2, 0)  # what it knew it still knows
    product.succeeds(binding, full=True)
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_cancelled_half_way_nobody_counts_twice(embedded: Product) -> None:
    """Everybody's row is gone; half of them are pushed anew when a person stops it."""
    binding = embedded.bind()
    members = embedded.succeeds(binding).members
    embedded.sandbox.door("DELETE", "rows")
    embedded.sandbox.switch(async_max_bytes=600, async_execute_seconds=0.2)
    run_id = embedded.start(binding, full=True)
    wait_until(lambda: embedded.run(run_id).acknowledged > 20, seconds=30)
    embedded.cancel(run_id)
    assert embedded.ended(run_id).state == RunState.CANCELLED
    assert embedded.binding(binding).member_count == len(stored(embedded, binding)) == members
    assert 0 < numbers(verify(embedded, binding))[1] < members


def test_after_a_push_whose_end_nobody_knows(embedded: Product) -> None:
    binding = embedded.bind()
    embedded.sandbox.fault({"path": UPSERT, "times": 1, "action": {"kind": "reset_after"}})
    run_id = embedded.start(binding)
    embedded.until(run_id, state=RunState.WAITING, stage=Stage.PUSH)
    embedded.cancel(run_id)
    embedded.ended(run_id)
    assert embedded.batch_states(run_id) == {BatchState.LOST}
    assert "the end of an earlier push is unknown" in verify(embedded, binding).err
    embedded.succeeds(binding, full=True)
    assert embedded.batch_states(run_id) == {BatchState.SUPERSEDED}
    settled(embedded, binding, set(embedded.sandbox.members("purchrs")))


def test_another_binding_inserts_rows_meanwhile(embedded: Product) -> None:
    binding = large(embedded)
    embedded.sandbox.fault({"path": ROWS, "nth": 2, "action": {"kind": "delay", "seconds": 2}})
    run_id = embedded.start(binding, full=True)
    wait_until(lambda: embedded.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    embedded.sandbox.upsert([{"Contact Key": f"other-{n}", "Trialers": True} for n in range(3_000)])
    assert embedded.ended(run_id).state == RunState.SUCCEEDED
    settled(embedded, binding, set(embedded.sandbox.members("purchrs")))


# --- guards ---------------------------------------------------------------------------------------------


def approve(product: Product, run_id: int) -> SyncRun:
    from config.queue import publish

    with product.db.write() as session:
        run = decisions.approve(session, run_id, now=utc_now(), actor=ACTOR)
    publish(product.app, run.id, run.stage)
    return product.ended(run.id)


def test_the_guard_counts_what_would_be_removed_of_what_is_flagged(embedded: Product) -> None:
    """Ten of six hundred are left flagged, and those ten leave: that is everything."""
    binding = embedded.bind(max_removal_percent=50)
    embedded.succeeds(binding)
    members = sorted(embedded.flagged("Purchasers"))
    embedded.sandbox.upsert([{"Contact Key": key, "Purchasers": False} for key in members[10:]])
    embedded.cohort("purchrs", members=members[10:])
    puts = len(embedded.puts())
    held = embedded.until(embedded.start(binding, full=True), state=RunState.HELD)
    assert held.error_code == "REMOVAL_GUARD"
    assert "remove 10 of 10 members (100.0 %)" in held.error_message
    assert len(embedded.puts()) == puts
    assert approve(embedded, held.id).state == RunState.SUCCEEDED
    settled(embedded, binding, set(members[10:]))


def test_who_is_not_flagged_any_more_is_not_removed(embedded: Product) -> None:
    """Five of a hundred who are flagged leave, and four hundred whom somebody has unflagged already."""
    binding = embedded.bind(max_removal_percent=50)
    embedded.succeeds(binding)
    members = sorted(embedded.flagged("Purchasers"))
    embedded.sandbox.upsert([{"Contact Key": key, "Purchasers": False} for key in members[100:]])
    embedded.cohort("purchrs", members=[*members[5:100], *members[500:]])
    full = embedded.succeeds(binding, full=True)
    assert full.exited == 405
    settled(embedded, binding, {*members[5:100], *members[500:]})


def test_an_empty_cohort_is_held(embedded: Product) -> None:
    binding = embedded.bind(max_removal_percent=99)
    embedded.succeeds(binding)
    held = embedded.until(
        embedded.start(binding, full=True, snapshot_id=embedded.file(binding, [])), state=RunState.HELD
    )
    assert held.error_code == "EMPTY_GUARD"


def test_many_flags_that_nobody_knew_of_need_a_person(embedded: Product) -> None:
    """Without a limit too, and though a person asked for the run: nobody knew of them."""
    binding = embedded.bind(max_removal_percent=None)
    embedded.sandbox.upsert([{"Contact Key": f"s-{n}", "Purchasers": True} for n in range(2_000)])
    held = embedded.until(embedded.start(binding, full=True), state=RunState.HELD)
    assert held.error_code == "REMOVAL_GUARD"
    assert len(stored(embedded, binding)) == 0
    embedded.sandbox.upsert([{"Contact Key": "a late one", "Purchasers": True}])  # it is read anew
    assert approve(embedded, held.id).state == RunState.SUCCEEDED
    settled(embedded, binding, set(embedded.sandbox.members("purchrs")))


# --- while it is read -------------------------------------------------------------------------------------


def large(product: Product) -> CohortBinding:
    """A binding of 9,000 in four pages, tampered with."""
    product.cohort("purchrs", generate={"count": 9_000, "seed": 9})
    binding = product.bind()
    product.succeeds(binding)
    tamper(product)
    return binding


def read_in_spite_of(product: Product, binding: CohortBinding, run_id: int, since: int) -> None:
    full = product.ended(run_id)
    assert (full.state, full.entered, full.exited) == (RunState.SUCCEEDED, 2, 3)
    assert len(product.requests("/rowset", since=since)) == 5  # on from where it stood
    settled(product, binding, set(product.sandbox.members("purchrs")))


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"rate limit"}))
def test_a_page_that_fails_is_read_again(embedded: Product, name: str) -> None:
    binding = large(embedded)
    since = last(embedded)
    embedded.sandbox.fault({"path": ROWS, "nth": 3, "times": 1, "action": FAULTS[name]})
    read_in_spite_of(embedded, binding, embedded.start(binding, full=True), since)


def test_a_rate_limit_is_waited_for_without_a_slot(product: Product) -> None:
    """The run has left its worker with nothing changed, and goes on by itself."""
    binding = large(product)
    before, since = stored(product, binding), last(product)
    product.sandbox.fault({"path": ROWS, "nth": 3, "times": 1, "action": FAULTS["rate limit"]})
    run_id = product.start(binding, full=True)
    waiting = product.until(run_id, state=RunState.WAITING, error_code="MC_RATE_LIMITED")
    assert (waiting.attempt, waiting.lease_until) == (0, None)
    assert stored(product, binding) == before
    assert product.batches(run_id) == []
    read_in_spite_of(product, binding, run_id, since)


def test_a_vendor_that_stays_away_changes_nothing(embedded: Product) -> None:
    binding = large(embedded)
    before, there = stored(embedded, binding), embedded.values("Purchasers")
    embedded.sandbox.fault({"path": ROWS, "after": 2, "action": FAULTS["server"]})
    run = embedded.sync(binding, full=True)
    assert (run.state, run.error_code) == (RunState.FAILED, "MC_UNAVAILABLE")
    assert (stored(embedded, binding), embedded.values("Purchasers")) == (before, there)


def test_a_reading_that_never_comes_out_ends(embedded: Product) -> None:
    """Rows change place all the time, and each reading is interrupted once: pages that are read are no progress."""
    binding = large(embedded)
    embedded.sandbox.fault(
        {"path": ROWS, "after": 2, "every": 5, "action": FAULTS["server"]},
        {"path": ROWS, "action": {"kind": "rows_moved", "rows": 7}},
    )
    run = embedded.sync(binding, full=True)
    assert (run.state, run.error_code) in {
        (RunState.FAILED, "MC_ROWS_MOVED"),
        (RunState.FAILED, "MC_UNAVAILABLE"),
    }


def test_rows_that_change_place(product: Product) -> None:
    binding = large(product)
    product.sandbox.fault({"path": ROWS, "nth": 2, "action": {"kind": "rows_moved", "rows": 7}})
    full = product.succeeds(binding, full=True)
    assert (full.entered, full.exited) == (2, 3)
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_the_lease_is_renewed_meanwhile(two_workers: Product) -> None:
    """Four pages of a second each, twice the lease: the other worker begins no reading of its own."""
    binding = large(two_workers)
    since = last(two_workers)
    two_workers.sandbox.fault({"path": ROWS, "action": {"kind": "delay", "seconds": 1.0}})
    full = two_workers.succeeds(binding, full=True)
    assert (full.entered, full.exited) == (2, 3)
    assert len(two_workers.requests("/rowset", since=since)) == 4


def test_killed_while_reading(product: Product) -> None:
    binding = large(product)
    product.sandbox.fault({"path": ROWS, "nth": 2, "action": {"kind": "delay", "seconds": 4}})
    run_id = product.start(binding, full=True)
    wait_until(lambda: product.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    for name in ["worker-1", "worker-2"][: 2 if product.db.dialect == "postgresql" else 1]:
        for child in psutil.Process(product.stack.pid(name)).children():
            child.kill()
    full = product.ended(run_id)
    assert (full.state, full.entered, full.exited) == (RunState.SUCCEEDED, 2, 3)
    settled(product, binding, set(product.sandbox.members("purchrs")))


def test_cancelled_while_reading(embedded: Product) -> None:
    binding = large(embedded)
    embedded.sandbox.fault({"path": ROWS, "action": {"kind": "delay", "seconds": 1.5}})
    puts, run_id = len(embedded.puts()), embedded.start(binding, full=True)
    wait_until(lambda: embedded.sandbox.door("GET", "faults")["faults"][0]["fired"], seconds=30)
    embedded.cancel(run_id)
    assert embedded.ended(run_id).state == RunState.CANCELLED
    assert len(embedded.puts()) == puts
    assert embedded.sandbox.door("GET", "faults")["faults"][0]["fired"] < 4
    assert list((embedded.db.settings.data_dir / "work").glob(f"read-{run_id}-*")) == []
