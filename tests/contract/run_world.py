"""A world for runs without a process: a clock, a vendor in memory, and workers that do one transaction at a time.

The rows, the claims, the ticks and what an answer of the vendor means are the product's own. A worker may be frozen
between any two of its transactions, and others go on meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.contact_keys.codec import decode_keys, encode_keys
from models.database import Database
from models.direction import Direction
from models.errors import (
    Cancelled,
    HeldForApproval,
    LeaseLost,
    RateLimited,
    SyncError,
    TerminalError,
    TransientError,
)
from models.membership import state
from models.runs import batches, claims, lifecycle, slots, unresolved_batches
from models.setup.bindings import Timing
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import BatchState, RunState, Stage
from tests.factories import make_binding, make_destination, make_source
from worker.claim import ClaimedRun, apply_error
from worker.context import Context, open_context
from worker.stages import job_tracking, write_outcome
from worker.stages.finish import finish
from worker.vendors.marketing_cloud.client import JobState, RowResult

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
EXTENSION = "extension"
DEADLOCK = "Transaction was deadlocked on lock resources"
ROWS = 3  # a batch
Rows: TypeAlias = tuple[Direction, list[str]]


@dataclass
class Job:
    """What the vendor was given at once; `results` once it was carried out."""

    binding: int
    parts: list[Rows]
    ends: datetime  # it is carried out by then, whoever asks
    results: list[RowResult] | None = None

    @property
    def rows(self) -> set[tuple[Direction, str]]:
        return {(direction, key) for direction, keys in self.parts for key in keys}


class Vendor:
    """One data extension, with a field for each binding. Jobs with the same rows are carried out in their order."""

    def __init__(self) -> None:
        self.members: dict[int, set[str]] = {}
        self.jobs: list[Job] = []
        self.carried_out: list[Job] = []
        self.luck = random.Random(0)

    def submit(self, binding: int, parts: list[Rows], ends: datetime) -> str:
        self.jobs.append(Job(binding, parts, ends))
        return f"job-{len(self.jobs) - 1}"

    def job(self, request_id: str) -> JobState:
        job = self.jobs[int(request_id.removeprefix("job-"))]
        if job.results is None:
            if self.luck.random() < 0.3:
                return JobState.RUNNING
            self.carry_out(job, errors=self.luck.random() < 0.4)
        ended = all(row.ok for row in job.results or ())
        return JobState.DONE if ended else JobState.DONE_WITH_ERRORS

    def results(self, request_id: str) -> list[RowResult]:
        return self.jobs[int(request_id.removeprefix("job-"))].results or []

    def carry_out(self, job: Job, *, errors: bool = False) -> None:
        """The job, after earlier copies of its rows; with `errors` some rows are refused."""
        for one in self.jobs[: self.jobs.index(job)]:
            if one.binding == job.binding and one.results is None and one.rows & job.rows:
                self.carry_out(one)
        members = self.members.setdefault(job.binding, set())
        self.carried_out.append(job)
        job.results = []
        for direction, keys in job.parts:
            for key in keys:
                passed = not job.results or not errors or self.luck.random() < 0.6
                why = "" if passed else self.luck.choice((DEADLOCK, "The value is too long"))
                job.results.append(RowResult(passed, "" if passed else "2", why))
                if passed:
                    (members.add if direction == Direction.ENTER else members.discard)(key)

    def pass_time(self, now: datetime) -> None:
        for job in self.jobs:
            if job.results is None and job.ends <= now:
                self.carry_out(job)


@dataclass
class Hold(ClaimedRun):
    """A claim whose vendor is the one in memory; there is no queue, so the scheduler publishes."""

    vendor: Vendor = field(default_factory=Vendor)

    def publish_woken(self, woken: Any) -> None:
        """Nobody hears it."""

    @contextmanager
    def marketing_cloud(self, destination: Any) -> Iterator[Any]:  # noqa: ARG002
        yield self.vendor


@dataclass
class Worker:
    """A worker with a run in its hands: what it has taken to send, and what the vendor answered to that."""

    name: str
    hold: Hold
    stage: Stage
    binding: int
    revived: bool = False
    taken: list[PushBatch] = field(default_factory=list)
    answer: write_outcome.WriteOutcome | None = None


class World:
    """Three bindings of one data extension: hourly and queueing, hourly and skipping, after the first."""

    def __init__(self, db: Database) -> None:
        self.db, self.now, self.vendor = db, NOON, Vendor()
        settings = db.settings.model_copy(update={"max_attempts": 5, "retry_run_base_seconds": 300.0})
        self.ctx: Context = replace(
            open_context(settings), db=db, clock=lambda: self.now, rng=random.Random(0)
        )
        make_source(db)
        make_destination(db)
        hourly = {"cron": "0 * * * *", "next_occurrence": NOON, "next_due_at": NOON}
        made = [
            make_binding(db, "first", timing=Timing(overlap="queue", **hourly)),
            make_binding(db, "second", timing=Timing(overlap="skip", **hourly)),
            make_binding(db, "third", after="first"),
        ]
        self.bindings = {one.id: one.name for one in made}
        self.targets: dict[int, set[str]] = {}  # of a run

    def claim(self, run: int, stage: Stage, name: str) -> Worker | None:
        """A worker gets a message."""
        lease = self.ctx.settings.lease_seconds
        claim = claims.claim(self.db, run, stage, now=self.now, lease=lease, worker=name)
        if claim is None:
            return None
        hold = Hold(self.ctx, claim, vendor=self.vendor)
        return Worker(name, hold, stage, hold.load().binding_id)

    def step(self, worker: Worker, luck: str, target: set[str]) -> bool:
        """The worker's next transaction; whether it holds the run after it. LeaseLost as it comes."""
        hold = worker.hold
        try:
            self._failing(worker, luck)
            return {
                Stage.SNAPSHOT: self._snapshot,
                Stage.DIFF: lambda one: self._diff(one, luck, target),
                Stage.PUSH: lambda one: self._push(one, luck),
                Stage.FINISH: self._finish,
            }[worker.stage](worker)
        except LeaseLost:
            raise
        except SyncError as error:
            apply_error(hold, error)
            return False

    def _failing(self, worker: Worker, luck: str) -> None:
        claim, run = worker.hold.claim, worker.hold.load()
        if run.cancel_requested and worker.stage not in {Stage.PUSH, Stage.FINISH}:
            raise Cancelled("CANCELLED", binding=run.binding.name)
        if claim.lost and claim.attempt >= self.ctx.settings.max_attempts:
            raise TerminalError("WORKER_LOST", times=claim.attempt)
        if luck == "passing":
            raise TransientError("MC_UNAVAILABLE")
        if luck == "limited":
            raise RateLimited("MC_RATE_LIMITED", retry_after=5)
        if luck == "terminal":
            raise TerminalError("MC_JOB_DEADLINE", minutes=1)

    def _advance(self, worker: Worker, stage: Stage) -> bool:
        with worker.hold.transaction() as (_, run):
            lifecycle.advance(run, stage, now=self.now)
        return False

    def _snapshot(self, worker: Worker) -> bool:
        return self._advance(worker, Stage.DIFF)

    def _diff(self, worker: Worker, luck: str, target: set[str]) -> bool:
        """What `worker/stages/diff.py` finds, of sets."""
        hold, run = worker.hold, worker.hold.load()
        if not job_tracking.earlier_runs(hold, run):
            return False
        if luck == "held" and not run.approved:
            raise HeldForApproval("EMPTY_GUARD", binding=run.binding.name, members=1, run=run.id)
        with self.db.read() as session:
            lost = {
                key
                for blob in unresolved_batches.iter_lost(session, run.binding_id)
                for key in decode_keys(blob)
            }
        known = self.state(run.binding_id)
        enter = sorted((target - known) | (lost & target))
        exits = sorted((known - target) | (lost - target))
        parts = [
            (way, keys[at : at + ROWS])
            for way, keys in ((Direction.ENTER, enter), (Direction.EXIT, exits))
            for at in range(0, len(keys), ROWS)
        ]
        with hold.transaction() as (session, mine):
            mine.entered, mine.exited, mine.members = len(enter), len(exits), len(target)
            state.counted(mine.binding, len(known))
            batches.plan(
                session,
                mine,
                [(way, len(keys), encode_keys(keys)) for way, keys in parts],
                data_extension_id=EXTENSION,
                first_seq=batches.next_seq(session, mine.id),
            )
            lifecycle.note_error(mine, None)
            lifecycle.advance(mine, Stage.PUSH if parts else Stage.FINISH, now=self.now)
        self.targets[run.id] = target
        return False

    def _push(self, worker: Worker, luck: str) -> bool:
        """The moves of `worker/stages/push.py`, one at a time."""
        hold, run = worker.hold, worker.hold.claim.run_id
        if not worker.revived:
            job_tracking.revive(hold)
            worker.revived = True
        elif worker.answer is not None:
            job, answer, worker.taken, worker.answer = worker.taken, worker.answer, [], None
            write_outcome.apply(hold, self.vendor, job, answer, first_look=1)  # type: ignore[arg-type]
        elif worker.taken:
            hold.require_lease()
            worker.answer = self._send(worker, luck)
        else:
            with self.db.read() as session:
                flying = batches.jobs(batches.in_flight(session, run))
            due = [job for job in flying if job[0].due_at is None or job[0].due_at <= self.now]
            if due:
                then = partial(self._turn_over, worker)
                job_tracking.poll(hold, self.vendor, due[0], pause=2.0, then=then)  # type: ignore[arg-type]
                return self.run(run).stage == Stage.PUSH
            if not self._take(worker):
                return self._leave(worker)
        return True

    def _send(self, worker: Worker, luck: str) -> write_outcome.WriteOutcome:
        parts = [(batch.direction, decode_keys(batch.keys)) for batch in worker.taken]
        if luck == "not taken":
            return write_outcome.Failed(TransientError("MC_UNAVAILABLE"), uncertain=False)
        ends = worker.hold.quiet_until
        if luck == "never came":
            return write_outcome.Failed(TransientError("MC_UNAVAILABLE"), uncertain=True)
        name = self.vendor.submit(worker.binding, parts, ends)
        if luck == "no answer":
            return write_outcome.Failed(TransientError("MC_UNAVAILABLE"), uncertain=True)
        return write_outcome.Queued(name)

    def _take(self, worker: Worker) -> bool:
        with worker.hold.transaction() as (session, run):
            self._take_within(worker, session, run)
        return bool(worker.taken)

    def _take_within(self, worker: Worker, session: Session, run: SyncRun) -> None:
        if not run.cancel_requested:
            rules = worker.hold.slot_rules
            worker.taken = batches.take_slot(session, run, rules, now=self.now, rows_together=2 * ROWS)

    def _turn_over(self, worker: Worker, session: Session, run: SyncRun) -> None:
        """In the transaction in which a job has ended."""
        self._take_within(worker, session, run)
        if not worker.taken and not batches.left(session, run.id):
            lifecycle.advance(run, Stage.FINISH, now=self.now)
            slots.wake(session, EXTENSION, worker.hold.slot_rules, now=self.now)

    def _leave(self, worker: Worker) -> bool:
        """Done, or nothing moves."""
        with worker.hold.transaction() as (session, run):
            left = batches.left(session, run.id)
            if not left:
                lifecycle.advance(run, Stage.FINISH, now=self.now)
            elif run.cancel_requested and not batches.in_flight(session, run.id):
                raise Cancelled("CANCELLED", binding=run.binding.name)
            else:
                waits = [one.due_at for one in left if one.due_at is not None]
                wanted = batches.slot_wanted(session, run, now=self.now)
                lifecycle.wait(run, min(waits) if waits else None, slot_wanted=wanted)
            slots.wake(session, EXTENSION, worker.hold.slot_rules, now=self.now)
        return False

    def _finish(self, worker: Worker) -> bool:
        finish(worker.hold)
        run = self.run(worker.hold.claim.run_id)
        count, rough = self.count(worker.binding)
        assert (count, rough) == (len(self.state(worker.binding)), False), "a run that finishes has counted"
        if run.state == RunState.SUCCEEDED:
            there = self.vendor.members.get(worker.binding, set())
            assert there == self.targets[run.id], "a run that succeeded has brought its snapshot there"
            assert self.state(worker.binding) == there
        return False

    def run(self, run_id: int) -> SyncRun:
        with self.db.read() as session:
            return session.get_one(SyncRun, run_id)

    def state(self, binding: int) -> set[str]:
        """The members that are stored as acknowledged."""
        found: set[str] = set()
        with self.db.read() as session:
            for blob in state.iter_chunks(session, binding):
                found.update(decode_keys(blob))
            for direction, blob in state.iter_deltas(session, binding):
                keys = decode_keys(blob)
                found = found.union(keys) if direction == Direction.ENTER else found.difference(keys)
        return found

    def count(self, binding: int) -> tuple[int, bool]:
        """The binding's member count, and whether it may be off."""
        with self.db.read() as session:
            row = session.get_one(CohortBinding, binding)
            return row.member_count, row.member_count_rough

    def open_keys(self, binding: int) -> set[str]:
        """The keys of batches that the vendor may have carried out without our knowing."""
        open_states = (BatchState.PLANNED, BatchState.SENDING, BatchState.SUBMITTED, BatchState.LOST)
        with self.db.read() as session:
            blobs = session.scalars(
                select(PushBatch.keys).where(
                    PushBatch.binding_id == binding,
                    PushBatch.sent_at.is_not(None),
                    PushBatch.state.in_(open_states),
                )
            )
            return {key for blob in blobs for key in decode_keys(blob)}

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.vendor.pass_time(self.now)
