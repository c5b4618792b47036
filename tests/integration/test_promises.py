"""Retries, self-pause, chains, blackouts and the quota: what the worker and the scheduler make of a run's end.

A stage is a plain function here, so that every end can be had at once; the rows, claims and ticks are the
product's own, on both databases.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from cli.config_file.timing import timing_of
from models.database import Database
from models.errors import (
    ConfigurationError,
    ContractError,
    RateLimited,
    SyncError,
    TerminalError,
    TransientError,
)
from models.membership import snapshots
from models.runs import lifecycle
from models.setup import bindings
from models.setup.bindings import Timing
from models.tables import AmplitudeProject, AuditEvent, CohortBinding, Snapshot, SyncRun
from models.types import RunState, SnapshotKind, SnapshotState, Stage, Tier, Trigger
from scheduler.tick import Ticked, tick
from tests.factories import make_binding, make_destination, make_source
from worker.claim import ClaimedRun, work
from worker.context import Context, open_context
from worker.stages.snapshot import snapshot as snapshot_stage

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
AWAY = TransientError("MC_UNAVAILABLE")


class World:
    """A database with a clock, and a worker that does what it is told."""

    def __init__(self, db: Database) -> None:
        self.db, self.now = db, NOON
        settings = db.settings.model_copy(
            update={
                "max_attempts": 1,
                "retry_run_base_seconds": 600.0,
                "retry_runs": 2,
                "pause_after_failures": 3,
            }
        )
        self.ctx: Context = replace(open_context(settings), db=db, clock=lambda: self.now)
        make_source(db)
        make_destination(db)

    def bind(self, name: str, *, cron: str | None = "0 * * * *", **given: Any) -> CohortBinding:
        timing = {name: given.pop(name) for name in list(given) if name in Timing.__dataclass_fields__}
        due = self.now if cron else None
        made = Timing(**{"cron": cron, "next_occurrence": due, "next_due_at": due, **timing})
        return make_binding(self.db, name, timing=made, **given)

    def tick(self, later: timedelta = timedelta()) -> Ticked:
        self.now += later
        return tick(self.db, self.now)

    def runs(self, name: str | None = None) -> list[SyncRun]:
        with self.db.read() as session:
            rows = session.scalars(select(SyncRun).order_by(SyncRun.id)).all()
        return [row for row in rows if name in {None, row.binding.name}]

    def binding(self, name: str) -> CohortBinding:
        with self.db.read() as session:
            return session.scalars(select(CohortBinding).where(CohortBinding.name == name)).one()

    def end(self, run: SyncRun, error: SyncError | None = None, *, partial: bool = False) -> SyncRun:
        """A worker takes the run and ends it."""

        def stage(hold: ClaimedRun) -> None:
            if error is not None:
                raise error
            with hold.transaction() as (session, mine):
                verdict = RunState.PARTIAL if partial else RunState.SUCCEEDED
                lifecycle.finish(session, mine, verdict, now=hold.now)

        work(self.ctx, run.id, Stage(run.stage), stage)  # type: ignore[arg-type]
        (found,) = [one for one in self.runs() if one.id == run.id]
        return found

    def by_hand(self, name: str, **given: Any) -> SyncRun:
        with self.db.write() as session:
            binding = session.scalars(select(CohortBinding).where(CohortBinding.name == name)).one()
            return lifecycle.dispatch(
                session,
                binding,
                trigger=Trigger.MANUAL,
                scheduled_for=self.now,
                now=self.now,
                actor="test",
                **given,
            )


@pytest.fixture
def world(db: Database) -> World:
    return World(db)


# --- retries ------------------------------------------------------------------------------------------------


def test_failure_by_a_passing_cause_is_retried_later_and_later_up_to_the_limit(world: World) -> None:
    world.bind("b", cron="0 12 * * *")
    world.tick()
    first = world.end(world.runs()[0], AWAY)
    assert first.state == RunState.FAILED
    assert first.retry_at is not None
    assert 5 * MINUTE <= first.retry_at - NOON <= 10 * MINUTE
    assert world.tick() == Ticked(), "not before its time"

    assert world.tick(10 * MINUTE) == Ticked(retried=1)
    assert world.tick() == Ticked()
    second = world.runs()[1]
    assert (second.trigger, second.retry, second.retry_of) == (Trigger.RETRY, 1, first.id)
    assert (second.scheduled_for, second.state) == (first.retry_at, RunState.QUEUED)
    second = world.end(second, AWAY)
    assert second.retry_at is not None
    assert 10 * MINUTE <= second.retry_at - world.now <= 20 * MINUTE

    world.tick(20 * MINUTE)
    third = world.end(world.runs()[2], AWAY)
    assert (third.retry, third.retry_of, third.retry_at) == (2, first.id, None), "now it is a person's turn"
    assert world.tick(HOUR) == Ticked()
    assert world.binding("b").failures_in_row == 1, "one occurrence failed, however often it was tried"


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("MC_SCOPES", missing="x"),
        ContractError("SNAPSHOT_TRUNCATED"),
        TerminalError("SNAPSHOT_REQUEST_LOST"),
        TerminalError("SNAPSHOT_DEADLINE", minutes=1),
    ],
    ids=lambda error: error.code,
)
def test_what_needs_a_person_or_costs_a_download_is_never_retried(world: World, error: SyncError) -> None:
    world.bind("b")
    world.tick()
    assert world.end(world.runs()[0], error).retry_at is None


def test_job_that_was_given_up_is_retried(world: World) -> None:
    world.bind("b")
    world.tick()
    assert world.end(world.runs()[0], TerminalError("MC_JOB_DEADLINE", minutes=1)).retry_at


def test_limit_of_a_vendor_is_waited_for(world: World) -> None:
    world.bind("b")
    world.tick()
    assert world.end(world.runs()[0], RateLimited("MC_RATE_LIMITED", retry_after=5)).state == RunState.WAITING


def test_manual_run_is_not_retried(world: World) -> None:
    world.bind("b")
    assert world.end(world.by_hand("b"), AWAY).retry_at is None


@pytest.mark.parametrize("what", ["newer run", "paused", "on demand", "tier"])
def test_retry_gives_way(world: World, what: str) -> None:
    world.bind("b", cron="0 12 * * *")
    world.tick()
    world.end(world.runs()[0], AWAY)
    with world.db.write() as session:
        binding = session.scalars(select(CohortBinding)).one()
        if what == "paused":
            binding.paused = True
        elif what == "on demand":
            binding.cron = binding.next_due_at = None
        elif what == "tier":
            binding.project.tier = Tier.GROWTH
    if what == "newer run":
        world.by_hand("b")
    assert world.tick(HOUR) == Ticked()
    assert [run.retry_at for run in world.runs() if run.retry_at] == [], "and it does not come back"


def test_missed_occurrences_stand_in_no_retrys_way(world: World) -> None:
    world.bind("b", catchup="none")
    world.tick()
    world.end(world.runs()[0], AWAY)
    assert world.tick(4.5 * HOUR) == Ticked(bindings=1, skipped=1, missed=4, retried=1)


@pytest.mark.parametrize(
    ("state", "kept"),
    [(SnapshotState.COMPLETED, True), (SnapshotState.REQUESTED, True), (SnapshotState.FAILED, False)],
)
def test_retry_takes_the_download_along(world: World, state: SnapshotState, kept: bool) -> None:
    world.bind("b")
    world.tick()
    with world.db.write() as session:
        run = session.scalars(select(SyncRun)).one()
        made = Snapshot(
            project_id=1,
            cohort_id="c",
            kind=SnapshotKind.DOWNLOAD,
            property="user_id",
            state=state,
            requested_at=NOON,
        )
        session.add(made)
        session.flush()
        run.snapshot_id = made.id
    world.end(world.runs()[0], AWAY)
    world.tick(10 * MINUTE)
    assert (world.runs()[1].snapshot_id is not None) is kept


# --- self-pause ---------------------------------------------------------------------------------------------


def test_failures_in_a_row_pause_the_binding_and_resume_clears_it(world: World) -> None:
    world.bind("b")
    for _ in range(3):
        assert not world.binding("b").paused
        world.tick()
        world.end(world.runs()[-1], AWAY)
        world.now += HOUR
    found = world.binding("b")
    assert found.paused
    assert found.pause_reason
    assert found.pause_reason.startswith("3 failures in a row, the last one MC_UNAVAILABLE")
    assert world.runs()[-1].retry_at is None
    with world.db.read() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "pause")).one()
    assert event.actor == "worker"
    assert world.tick(HOUR) == Ticked(retried=0), "neither an occurrence nor an older run's retry"

    with world.db.write() as session:
        bindings.resume_binding(session, "b", timing=timing_of(found, world.now), now=world.now, actor="test")
    found = world.binding("b")
    assert (found.paused, found.pause_reason, found.failures_in_row) == (False, None, 0)
    assert world.tick(HOUR).queued == 1


def test_success_between_failures_counts_anew(world: World) -> None:
    world.bind("b")
    for error in (AWAY, AWAY, None, AWAY, AWAY):
        world.tick()
        world.end(world.runs()[-1], error)
        world.now += HOUR
    assert not world.binding("b").paused


# --- the quota ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "force", "expected"),
    [("schedule", False, RunState.SKIPPED), ("manual", False, RunState.FAILED), ("manual", True, None)],
)
def test_spent_quota_holds_scheduled_runs_back_and_asks_a_person(
    world: World, trigger: str, force: bool, expected: RunState | None
) -> None:
    world.bind("b")
    with world.db.write() as session:
        session.scalars(select(AmplitudeProject)).one().monthly_quota = 0
    if trigger == "manual":
        world.by_hand("b", force=force)
    else:
        world.tick()

    def stage(hold: ClaimedRun) -> None:
        with hold.transaction() as (session, run):
            snapshots.join_or_begin(
                session, run, now=hold.now, fresh=snapshots.FreshnessPolicy(300, 3600), parallel=4
            )

    work(world.ctx, world.runs()[0].id, Stage.SNAPSHOT, stage)  # type: ignore[arg-type]
    run = world.runs()[0]
    with world.db.read() as session:
        spent = snapshots.spent_this_month(session, 1, now=NOON)
    assert spent == (expected is None)
    if expected is None:
        return
    assert (run.state, run.error_code, run.retry_at) == (expected, "AMPLITUDE_QUOTA", None)
    if expected is RunState.SKIPPED:
        assert world.binding("b").failures_in_row == 0


# --- chains -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "partial", "follows"),
    [(None, False, True), (None, True, True), (AWAY, False, False)],
    ids=["succeeded", "partial", "failed"],
)
def test_follower_runs_after_a_good_run(
    world: World, error: SyncError | None, partial: bool, follows: bool
) -> None:
    world.bind("first")
    world.bind("second", cron=None, after="first")
    world.tick()
    before = world.end(world.runs()[0], error, partial=partial)
    found = world.runs("second")
    assert len(found) == follows
    for run in found:
        assert (run.trigger, run.scheduled_for, run.state) == (
            Trigger.CHAIN,
            before.scheduled_for,
            RunState.QUEUED,
        )
        assert run.published_at is None, "the scheduler publishes it"


def test_chain_of_three_after_a_retry_and_a_manual_run(world: World) -> None:
    world.bind("a")
    world.bind("b", cron=None, after="a")
    world.bind("c", cron=None, after="b")
    world.tick()
    world.end(world.runs()[0], AWAY)
    world.tick(10 * MINUTE)
    world.end(world.runs("a")[-1])
    world.end(world.runs("b")[0])
    assert len(world.runs("c")) == 1
    world.end(world.runs("c")[0])
    world.end(world.by_hand("a"))
    assert len(world.runs("b")) == 2


@pytest.mark.parametrize(("policy", "state"), [("skip", RunState.SKIPPED), ("queue", RunState.DEFERRED)])
def test_follower_that_is_still_at_work(world: World, policy: str, state: RunState) -> None:
    world.bind("a")
    world.bind("b", cron=None, after="a", overlap=policy)
    world.by_hand("b")
    world.tick()
    world.end(world.runs("a")[0])
    assert world.runs("b")[-1].state == state


def test_paused_follower_or_one_outside_its_dates_does_not_run(world: World) -> None:
    world.bind("a")
    world.bind("paused", cron=None, after="a")
    world.bind("later", cron=None, after="a", starts_on=NOON.date() + timedelta(days=1))
    world.bind("earlier", cron=None, after="a", ends_on=NOON.date() - timedelta(days=1))
    world.bind("today", cron=None, after="a", starts_on=NOON.date(), ends_on=NOON.date())
    with world.db.write() as session:
        bindings.pause_binding(session, "paused", reason="x", now=NOON, actor="test")
    world.tick()
    world.end(world.runs("a")[0])
    assert {run.binding.name for run in world.runs()} == {"a", "today"}


def test_circle_is_refused_by_its_names(world: World) -> None:
    world.bind("a")
    world.bind("b", cron=None, after="a")
    world.bind("c", cron=None, after="b")
    for name, after in (("a", "c"), ("a", "a")):
        with pytest.raises(ConfigurationError) as refused, world.db.write() as session:
            bindings.update_binding(session, name, after=after, now=NOON, actor="test")
        assert refused.value.code == "CHAIN_CYCLE"
    assert "a after c after b after a" in _cycle(world)
    with pytest.raises(ConfigurationError) as used, world.db.write() as session:
        bindings.remove_binding(session, "b", now=NOON, actor="test")
    assert used.value.code == "IN_USE"
    with world.db.write() as session:
        row = bindings.update_binding(session, "c", after="", now=NOON, actor="test")
        assert row.after_name is None
        bindings.remove_binding(session, "b", now=NOON, actor="test")


def _cycle(world: World) -> str:
    with pytest.raises(ConfigurationError) as refused, world.db.write() as session:
        bindings.update_binding(session, "a", after="c", now=NOON, actor="test")
    return refused.value.message


def test_chain_needs_the_tier_of_a_schedule(world: World) -> None:
    make_source(world.db, "small", tier=Tier.GROWTH)
    world.bind("a")
    with pytest.raises(ConfigurationError) as refused:
        make_binding(world.db, "b", source="small", after="a", timing=Timing())
    assert refused.value.code == "PLAN_ON_DEMAND_ONLY"


# --- dates --------------------------------------------------------------------------------------------------


def test_nothing_runs_before_the_first_day_or_after_the_last(world: World) -> None:
    binding = world.bind("b", cron="0 12 * * *")
    zone = "America/New_York"
    start, end = NOON.date() + timedelta(days=1), NOON.date() + timedelta(days=2)
    planned = timing_of(binding, NOON, timezone=zone, starts_on=start, ends_on=end)
    with world.db.write() as session:
        bindings.update_binding(session, "b", timing=planned, now=NOON, actor="test")
    for _ in range(6 * 24):
        world.tick(HOUR)
        for run in world.runs():
            if run.state == RunState.QUEUED:
                world.end(run)
    assert [run.scheduled_for for run in world.runs()] == [
        datetime(2026, 3, 3, 17, tzinfo=UTC),
        datetime(2026, 3, 4, 17, tzinfo=UTC),
    ]
    assert world.binding("b").next_due_at is None


# --- blackouts ----------------------------------------------------------------------------------------------


def test_run_does_not_begin_in_a_blackout_and_looks_again_when_it_is_changed(world: World) -> None:
    world.bind("b", blackouts="11:00-13:30", timezone="UTC")
    world.tick()
    work(world.ctx, world.runs()[0].id, Stage.SNAPSHOT, snapshot_stage)
    run = world.runs()[0]
    assert (run.state, run.error_code, run.wake_at) == (RunState.WAITING, "BLACKOUT", NOON + 1.5 * HOUR)
    assert "2026-03-02 13:30 UTC" in (run.error_message or "")
    assert run.attempt == 0
    with world.db.write() as session:
        planned = timing_of(world.binding("b"), world.now, blackouts="")
        bindings.update_binding(session, "b", timing=planned, now=world.now, actor="test")
    assert world.runs()[0].wake_at == world.now


# --- queued on request --------------------------------------------------------------------------------------


def test_second_run_waits_behind_the_first_if_asked_to(world: World) -> None:
    world.bind("b", cron=None)
    first = world.by_hand("b")
    with pytest.raises(ConfigurationError) as refused:
        world.by_hand("b")
    assert refused.value.code == "RUN_UNFINISHED"
    world.now += MINUTE
    second = world.by_hand("b", queue=True, idempotency_key="k")
    assert second.state == RunState.DEFERRED
    assert world.by_hand("b", queue=True, idempotency_key="k").id == second.id
    with pytest.raises(ConfigurationError) as refused:
        world.by_hand("b", queue=True)
    assert (refused.value.code, refused.value.context["state"]) == ("RUN_UNFINISHED", RunState.DEFERRED)
    with world.db.write() as session:
        bindings.pause_binding(session, "b", reason="x", now=NOON, actor="test")
    assert world.tick() == Ticked()
    world.end(first)
    assert world.tick() == Ticked(started=1), "a person asked for it: neither a pause nor the tier matters"
    assert world.runs()[1].state == RunState.QUEUED
