"""Marketing Cloud at its worst: whatever happens to a push, the data extension is right in the end.

Every fault is the sandbox's, over real HTTP; what is checked are the run's row and what the vendor received.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from sqlalchemy import update

from models.tables import CohortBinding, PushBatch
from models.types import BatchState, RunState
from tests.product import RESULTS, STATUS, UPSERT, Product, utc_now
from tests.support import wait_until

Rules = list[dict[str, Any]]


def rule(path: str, kind: str, *, action: dict[str, Any] | None = None, **match: Any) -> dict[str, Any]:
    return {"path": path, **match, "action": {"kind": kind, **(action or {})}}


def answers(path: str, status: int, body: Any = "", *, headers: Any = None, **match: Any) -> dict[str, Any]:
    more = {"status": status, "body": body, "headers": headers or {}}
    return rule(path, "status", action=more, **match)


RATE = {"message": "Rate limit exceeded", "errorcode": 50100, "documentation": "", "retryAfter": 1}
BLOCKED = {"message": "Your requests are temporarily blocked.", "errorcode": 50200, "documentation": ""}
HTML = "<html><body>Server Error</body></html>"

# What passes by itself: the fault, the switches, how many upserts arrive at least and at most.
PASSING: dict[str, tuple[Rules, dict[str, Any], range]] = {
    "status absent at first": ([], {"async_absent_seconds": 0.5}, range(1, 2)),
    "executing for a while": ([], {"async_execute_seconds": 0.4}, range(1, 2)),
    "the job ends in an error": ([rule(UPSERT, "job_error", times=1)], {}, range(2, 3)),
    "deadlocks": ([rule(UPSERT, "deadlock_rows", times=2, action={"every": 10})], {}, range(3, 4)),
    "deadlocks, results on pages": (
        [rule(UPSERT, "deadlock_rows", times=1, action={"every": 10})],
        {"results_page_size": 100},
        range(2, 3),
    ),
    "results lack rows for a while": (
        [
            rule(UPSERT, "deadlock_rows", times=1, action={"rows": 1}),
            rule(RESULTS, "cut_items", times=2, action={"rows": 5}),
        ],
        {},
        range(2, 3),
    ),
    "results lack rows for good": (
        [rule(UPSERT, "results_short", times=1, action={"rows": 3})],
        {},
        range(1, 2),  # no error: the results are not read at all
    ),
    "429 with Retry-After": (
        [answers(UPSERT, 429, RATE, headers={"Retry-After": "1"}, times=2)],
        {},
        range(3, 4),
    ),
    "503 with Retry-After": (
        [answers(UPSERT, 503, HTML, headers={"Retry-After": "1"}, times=1)],
        {},
        range(2, 3),
    ),
    "503": ([answers(UPSERT, 503, {"message": "Busy", "errorcode": 50300}, times=2)], {}, range(3, 4)),
    "502 in HTML": ([answers(UPSERT, 502, HTML, times=1)], {}, range(2, 3)),
    "a poll answers 500": ([answers(STATUS, 500, HTML, times=3)], {}, range(1, 2)),
    "a poll is reset": ([rule(STATUS, "reset_after", times=2)], {}, range(1, 2)),
    "a poll answers garbage": ([rule(STATUS, "garbage", times=1)], {}, range(1, 2)),
    "a poll answers 404": ([answers(STATUS, 404, {"message": "Not Found"}, times=2)], {}, range(1, 2)),
    "reset before the upsert is read": ([rule(UPSERT, "reset_before", times=1)], {}, range(2, 3)),
    "reset after it was queued": ([rule(UPSERT, "reset_after", times=1)], {}, range(2, 3)),
    "an empty answer to the upsert": ([rule(UPSERT, "empty", times=1)], {}, range(1, 4)),
    "tokens end in mid-run": ([rule(UPSERT, "expire_tokens", times=1)], {}, range(2, 3)),
    "the token endpoint slows down": (
        [answers("/v2/token", 429, RATE, headers={"Retry-After": "1"}, times=1)],
        {},
        range(1, 2),
    ),
    "batches are too large": ([], {"async_max_bytes": 5_000}, range(4, 16)),
}


@pytest.mark.parametrize("name", PASSING)
def test_it_passes_by_itself(embedded: Product, name: str) -> None:
    rules, switches, expected = PASSING[name]
    product = embedded
    binding = product.bind()
    members = {f"member-{number:03d}" for number in range(300)}
    product.sandbox.switch(**switches)
    product.sandbox.fault(*rules)
    run = product.sync(binding, snapshot_id=product.file(binding, members))
    if name == "an empty answer to the upsert" and run.state == RunState.FAILED:
        assert run.error_code == "MC_CONTRACT"
    else:
        assert (run.state, run.error_code) == (RunState.SUCCEEDED, None), run.error_message
        assert (run.acknowledged, run.rejected) == (run.members, 0)
        assert len(product.puts()) in expected
        assert product.flagged("Purchasers") == members
    # And a change that contradicts the first push is never overtaken by what of it was still under way.
    product.sandbox.switch(async_max_bytes=5_000_000)
    product.succeeds(binding, snapshot_id=product.file(binding, ["member-000", "newcomer"]))
    assert product.flagged("Purchasers") == {"member-000", "newcomer"}
    assert product.most_in_flight() <= 2


def test_only_deadlocked_rows_are_sent_again(embedded: Product) -> None:
    embedded.sandbox.fault(rule(UPSERT, "deadlock_rows", times=2, action={"every": 10}))
    run = embedded.succeeds(embedded.bind())
    rows = [line["rows"] for line in embedded.puts()]
    assert rows == [run.members, -(-run.members // 10), -(-run.members // 100)]
    assert run.rejected == 0


@pytest.mark.parametrize("form", ["string"])  # numbers are what all the other tests see
def test_refused_rows_are_recorded_and_tried_by_the_next_run_alone(embedded: Product, form: str) -> None:
    product = embedded
    binding = product.bind()
    product.sandbox.switch(error_code_form=form)
    refuse = rule(UPSERT, "row_errors", action={"rows": 5, "message": "The row was rejected.", "code": 2})
    product.sandbox.fault(refuse)
    run = product.sync(binding)
    assert (run.state, run.rejected, run.acknowledged) == (RunState.PARTIAL, 5, run.members - 5)
    found = product.rejections(binding)
    assert {(r.code, r.message, r.direction, r.count) for r in found} == {
        ("2" if form == "int" else "UnexpectedError", "The row was rejected.", "enter", 1)
    }
    assert {r.key for r in found} == set(product.sandbox.members("purchrs")) - product.flagged("Purchasers")
    assert product.binding(binding).member_count == run.members - 5

    again = product.sync(binding)  # the same file: it is compared all the same
    assert (again.state, again.entered, again.rejected) == (RunState.PARTIAL, 5, 5)
    assert product.puts()[-1]["rows"] == 5
    assert {r.count for r in product.rejections(binding)} == {2}

    product.sandbox.fault()
    good = product.succeeds(binding)
    assert (good.entered, good.acknowledged, product.puts()[-1]["rows"]) == (5, 5, 5)
    assert product.rejections(binding) == []
    product.equal("purchrs", "Purchasers")
    assert product.succeeds(binding).marketing_cloud_requests == 0


def test_rows_without_a_result_are_not_taken_for_done(embedded: Product) -> None:
    """Results that never come: sent six times, then left to the next run, and said so."""
    product = embedded
    binding = product.bind()
    product.cohort("purchrs", members=["a", "b", "c"])
    product.sandbox.fault(
        rule(UPSERT, "deadlock_rows", action={"rows": 1}), rule(RESULTS, "cut_items", action={"rows": 2})
    )
    run_id = product.start(binding)
    wait_until(lambda: BatchState.SUBMITTED in product.batch_states(run_id), seconds=30)
    with product.db.write() as session:  # the sixth time, and not the first
        session.execute(update(PushBatch).where(PushBatch.run_id == run_id).values(attempts=6))
    run = product.ended(run_id)
    assert run.state == RunState.PARTIAL
    assert (run.acknowledged, run.rejected) == (0, 3)
    assert sorted(r.code for r in product.rejections(binding)) == ["2", "NO_RESULT", "NO_RESULT"]
    product.sandbox.fault()
    product.cohort("purchrs", members=["d"])  # they may be flagged: they have to be unflagged
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")
    assert product.batch_states(run.id) <= {BatchState.ACKNOWLEDGED, BatchState.SUPERSEDED}


def test_a_refusal_after_a_lost_answer_proves_nothing(embedded: Product) -> None:
    """The first submission was carried out although its answer was lost; the second one's rows are refused."""
    product = embedded
    binding = product.bind()
    product.cohort("purchrs", members=["a", "b", "c"])
    product.sandbox.fault(
        rule(UPSERT, "reset_after", times=1), rule(UPSERT, "row_errors", action={"rows": 2})
    )
    run = product.sync(binding)
    assert (run.state, run.rejected) == (RunState.PARTIAL, 2)
    assert product.flagged("Purchasers") == {"a", "b", "c"}
    product.sandbox.fault()
    product.cohort("purchrs", members=["c"])
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")


# --- limits that are shared -------------------------------------------------------------------------------


def test_everybody_cools_down(two_workers: Product) -> None:
    """A Retry-After that one worker got holds the other's requests as well."""
    product = two_workers
    pair = [product.bind(), product.bind("churnrk", "Churn Risk")]
    product.sandbox.fault(answers(UPSERT, 429, RATE, headers={"Retry-After": "3"}, times=1))
    started = [product.start(binding) for binding in pair]
    for run_id in started:
        assert product.ended(run_id).state == RunState.SUCCEEDED
    first = next(line for line in product.puts() if line["status"] == 429)
    later = [line for line in product.requests(vendor="marketing_cloud") if line["seq"] > first["seq"]]
    # What was under way when the 429 came is all that may arrive in these three seconds.
    assert seconds(first, later[0]) > 2.5 or len([x for x in later if seconds(first, x) < 2.5]) <= 2
    assert (
        seconds(first, next(x for x in product.puts() if x["seq"] > first["seq"])) > 2.5
        or len([x for x in product.puts() if seconds(first, x) < 2.5]) <= 2
    )
    product.equal("purchrs", "Purchasers")
    product.equal("churnrk", "Churn Risk")


def seconds(one: dict[str, Any], other: dict[str, Any]) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(other["time"]) - datetime.fromisoformat(one["time"])).total_seconds()


@pytest.mark.parametrize(
    ("fault", "code", "pause"),
    [
        (answers(UPSERT, 429, "Too Many Requests", times=1), "MC_RATE_LIMITED", 30),
        (answers(UPSERT, 429, BLOCKED, times=1), "MC_BLOCKED", 300),
        (answers("/v2/token", 429, BLOCKED, times=1), "MC_BLOCKED", 300),
    ],
    ids=["429 without a word", "account block", "account block at the token"],
)
def test_a_long_pause_frees_the_worker_and_spends_no_attempt(
    embedded: Product, fault: dict[str, Any], code: str, pause: int
) -> None:
    product = embedded
    binding = product.bind()
    product.sandbox.fault(fault)
    run = product.until(product.start(binding), state=RunState.WAITING, error_code=code)
    assert run.wake_at is not None
    assert pause - 20 < (run.wake_at - utc_now()).total_seconds() < pause + 5
    assert run.attempt == 0
    arrived = len(product.requests(vendor="marketing_cloud"))
    time.sleep(0.5)
    assert len(product.requests(vendor="marketing_cloud")) == arrived
    product.wake(run.id)
    assert product.ended(run.id).state == RunState.SUCCEEDED
    product.equal("purchrs", "Purchasers")
    assert {batch.attempts for batch in product.batches(run.id)} == {1}


def test_a_slow_vendor_keeps_no_worker(embedded: Product) -> None:
    """The only slot there is serves another run in seconds while the first one waits for its job."""
    product = embedded
    product.sandbox.switch(async_order="parallel")
    product.sandbox.fault(rule(UPSERT, "job_slow", times=1, action={"seconds": 20.0}))
    slow = product.start(product.bind())
    wait_until(lambda: BatchState.SUBMITTED in product.batch_states(slow), seconds=20)
    other = product.bind("churnrk", "Churn Risk")
    run = product.succeeds(other)
    assert run.finished_at is not None
    assert (run.finished_at - run.created_at).total_seconds() < 6  # some two on an idle machine
    product.equal("churnrk", "Churn Risk")
    assert product.run(slow).state in {RunState.WAITING, RunState.RUNNING}
    # A third one, of the same data extension, while both places in it are taken.
    product.sandbox.fault(rule(UPSERT, "job_slow", times=1, action={"seconds": 20.0}))
    product.cohort("churnrk", churn={"exit": 5})
    second = product.start(other)
    wait_until(lambda: BatchState.SUBMITTED in product.batch_states(second), seconds=20)
    third = product.start(product.bind("trialer", "Trialers"))
    product.until(third, state=RunState.WAITING, stage="push")
    assert product.batch_states(third) == {BatchState.PLANNED}
    product.sandbox.advance(20.0)
    for run_id in (slow, second, third):
        assert product.ended(run_id).state == RunState.SUCCEEDED
    for cohort, attribute in (("purchrs", "Purchasers"), ("churnrk", "Churn Risk"), ("trialer", "Trialers")):
        product.equal(cohort, attribute)
    assert product.most_in_flight() == 2


# --- what a person has to mend ----------------------------------------------------------------------------

FORBIDDEN = {"message": "Insufficient privileges to complete this action.", "errorcode": 20002}
UNAUTHORIZED = {"message": "Not Authorized", "errorcode": 0, "documentation": ""}


@pytest.mark.parametrize(
    ("fault", "code", "upserts"),
    [
        (answers(UPSERT, 401, UNAUTHORIZED), "MC_FORBIDDEN", 2),
        (answers(UPSERT, 403, FORBIDDEN), "MC_FORBIDDEN", 1),
    ],
    ids=["401 twice", "403"],
)
def test_a_refused_upsert_ends_the_run(
    embedded: Product, fault: dict[str, Any], code: str, upserts: int
) -> None:
    product = embedded
    binding = product.bind()
    product.sandbox.fault(fault)
    run = product.sync(binding)
    assert (run.state, run.error_code) == (RunState.FAILED, code)
    assert "data_extensions_write" in (run.error_remedy or "")
    assert len(product.puts()) == upserts
    assert product.batch_states(run.id) == {BatchState.DROPPED}
    assert product.sandbox.rows() == []
    product.sandbox.fault()
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")


def test_a_refusal_of_every_row_ends_the_run_after_a_bounded_search(embedded: Product) -> None:
    product = embedded
    binding = product.bind()
    product.sandbox.fault(answers(UPSERT, 400, {"message": "Bad", "errorcode": 10004}))
    run = product.sync(binding)
    assert (run.state, run.error_code, run.acknowledged) == (RunState.FAILED, "MC_REJECTED", 0)
    assert len(product.puts()) < 60
    assert product.sandbox.rows() == []
    product.sandbox.fault()
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")


def test_one_token_serves_both_workers(two_workers: Product) -> None:
    product = two_workers
    pair = [product.bind(), product.bind("churnrk", "Churn Risk")]
    for run_id in [product.start(binding) for binding in pair]:
        product.ended(run_id)
    before = product.vendor()["marketing_cloud"]["tokens_issued"]
    product.sandbox.fault(rule(UPSERT, "expire_tokens", times=1))
    product.cohort("purchrs", churn={"exit": 5})
    product.succeeds(pair[0])
    assert product.vendor()["marketing_cloud"]["tokens_issued"] <= before + 2
    assert len([line for line in product.requests() if line["status"] == 401]) == 1


@pytest.mark.parametrize("answer", ["row_error", "reject_batch", "job_error"])
def test_a_field_deleted_between_diff_and_push(embedded: Product, answer: str) -> None:
    product = embedded
    binding = product.bind()
    held_between_diff_and_push(product, binding, lambda: drop_field(product, answer))
    run = product.ended(product.run_id)
    assert run.state == RunState.FAILED
    assert run.error_code == "ATTRIBUTE_MISSING"
    assert product.rejections(binding) == []
    product.sandbox.door(
        "PUT",
        "data-extensions/Amplitude Engage",
        {"add_fields": [{"name": "Purchasers", "type": "Boolean"}]},
    )
    product.succeeds(binding)
    product.equal("purchrs", "Purchasers")


def drop_field(product: Product, answer: str) -> None:
    product.sandbox.switch(unknown_column=answer)
    product.sandbox.door("PUT", "data-extensions/Amplitude Engage", {"drop_fields": ["Purchasers"]})


def test_a_data_extension_deleted_between_diff_and_push(embedded: Product) -> None:
    product = embedded
    binding = product.bind()
    held_between_diff_and_push(
        product, binding, lambda: product.sandbox.door("DELETE", "data-extensions/Amplitude Engage")
    )
    run = product.ended(product.run_id)
    assert (run.state, run.error_code) == (RunState.FAILED, "DATA_EXTENSION_MISSING")
    assert product.batch_states(run.id) == {BatchState.DROPPED}


def held_between_diff_and_push(product: Product, binding: CohortBinding, meanwhile: Any) -> None:
    """Let `meanwhile` happen after the diff and before the first upsert: the vendor's cool-down holds that."""
    product.sandbox.fault(answers(UPSERT, 429, RATE, headers={"Retry-After": "1"}, times=1))
    product.run_id = product.start(binding)
    product.until(product.run_id, state=RunState.WAITING, stage="push")
    meanwhile()


# --- runs that end early, and the run after them ----------------------------------------------------------


def test_cancelled_while_jobs_are_under_way(embedded: Product) -> None:
    """What was submitted is followed to its end; nothing more is sent; the next run goes on from there."""
    product = embedded
    binding = product.bind()
    product.cohort("purchrs", generate={"count": 60_000, "seed": 4})
    product.sandbox.switch(async_queue_seconds=2.0)
    run_id = product.start(binding)
    wait_until(lambda: len(product.puts()) == 2, seconds=30)
    product.cancel(run_id)
    run = product.ended(run_id)
    assert (run.state, run.error_code) == (RunState.CANCELLED, "CANCELLED")
    assert len(product.puts()) == 2
    assert [batch.state for batch in product.batches(run_id)] == ["acknowledged", "acknowledged", "dropped"]
    assert run.acknowledged == 50_000
    product.sandbox.switch(async_queue_seconds=0.02)
    after = product.succeeds(binding)
    assert after.entered == 10_000
    product.equal("purchrs", "Purchasers")


def test_cancelled_before_it_began(embedded: Product) -> None:
    product = embedded
    binding = product.bind()
    product.sandbox.switch(amplitude_job_seconds=3.0)
    run_id = product.start(binding)
    product.until(run_id, state=RunState.WAITING, stage="snapshot")
    product.cancel(run_id)
    assert product.run(run_id).state == RunState.CANCELLED
    product.sandbox.switch(amplitude_job_seconds=0.0)
    product.succeeds(binding)
    assert len(product.puts()) == 1


def test_the_next_run_follows_what_a_failed_one_left(embedded: Product) -> None:
    """Jobs of a run that failed are still at the vendor, and the cohort has turned round meanwhile."""
    product = embedded
    binding = product.bind()
    product.cohort("purchrs", members=["a", "b", "c"])
    product.sandbox.switch(async_queue_seconds=3.0)
    product.sandbox.fault(answers(STATUS, 403, FORBIDDEN))
    run = product.sync(binding)
    assert (run.state, product.batch_states(run.id)) == (RunState.FAILED, {BatchState.SUBMITTED})
    product.sandbox.fault()
    product.sandbox.switch(async_queue_seconds=0.02)
    product.cohort("purchrs", members=["c", "d"])
    after = product.succeeds(binding)
    assert product.batch_states(run.id) == {BatchState.ACKNOWLEDGED}
    assert (after.entered, after.exited) == (1, 2)
    product.equal("purchrs", "Purchasers")
    assert product.binding(binding).member_count == 2
    puts = product.puts()
    assert len(puts) == 2
    assert seconds(puts[0], puts[1]) > 2.5  # not before the first job's end


def test_the_next_run_pushes_anew_what_is_lost(embedded: Product) -> None:
    """The answer was lost and so was the run; what it may have written is written over, and not too early."""
    product = embedded
    binding = product.bind()
    product.cohort("purchrs", members=["a", "b", "c"])
    product.sandbox.switch(async_queue_seconds=1.5)  # less than the time for which nothing contradicts it
    product.sandbox.fault(rule(UPSERT, "reset_after", times=1), answers(UPSERT, 403, FORBIDDEN))
    run = product.sync(binding)
    assert (run.state, product.batch_states(run.id)) == (RunState.FAILED, {BatchState.LOST})
    product.sandbox.fault()
    product.cohort("purchrs", members=["d"])
    after = product.succeeds(binding)
    assert (after.entered, after.exited) == (1, 3)  # though the state knows of no member
    assert product.flagged("Purchasers") == {"d"}
    assert product.values("Purchasers") == {"a": False, "b": False, "c": False, "d": True}
    assert product.batch_states(run.id) == {BatchState.SUPERSEDED}
    puts = product.puts()
    assert seconds(puts[0], next(p for p in puts if p["seq"] > puts[0]["seq"] and p["status"] == 202)) > 1.9


def test_a_job_that_never_ends_is_given_up(embedded: Product) -> None:
    """After the deadline it is sent again, and nothing that contradicts it until nobody would execute it."""
    product = embedded
    binding = product.bind()
    product.sandbox.fault(rule(UPSERT, "status_never", times=1))
    run_id = product.start(binding)
    wait_until(lambda: BatchState.SUBMITTED in product.batch_states(run_id), seconds=30)
    product.backdate(run_id, 30)
    run = product.ended(run_id)
    assert run.state == RunState.SUCCEEDED
    assert [batch.attempts for batch in product.batches(run_id)] == [2]
    product.equal("purchrs", "Purchasers")


def test_jobs_of_a_dead_run_keep_no_slot_for_ever(embedded: Product) -> None:
    """Both places were taken by a run that has ended: nobody looks whether its jobs are done."""
    product = embedded
    product.cohort("purchrs", generate={"count": 30_000, "seed": 4})
    product.sandbox.fault(
        rule(UPSERT, "status_never", times=2), answers(STATUS, 403, FORBIDDEN, after=1, times=1)
    )
    run = product.sync(product.bind())
    assert [batch.state for batch in product.batches(run.id)] == [BatchState.SUBMITTED] * 2
    product.succeeds(product.bind("churnrk", "Churn Risk"))
    product.equal("churnrk", "Churn Risk")


def test_bodies_hold_the_binding_s_field_alone(embedded: Product) -> None:
    embedded.cohort("purchrs", members=["a"])
    embedded.succeeds(embedded.bind())
    assert [orjson.loads(line["body"]) for line in embedded.puts(bodies="1")] == [
        {"items": [{"Contact Key": "a", "Purchasers": True}]}
    ]
