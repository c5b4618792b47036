"""What must hold of runs, batches and members after each step of `tests/contract/test_run_machine.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant
from sqlalchemy import select

from models.contact_keys.codec import decode_keys
from models.direction import Direction
from models.runs import due_work, outbox
from models.tables import PushBatch, SyncRun
from models.types import IN_FLIGHT, UNFINISHED, BatchState, RunState, Stage
from tests.contract.run_world import Worker, World

STALE = timedelta(seconds=60)
FAR = timedelta(days=30)
ENDED = (BatchState.ACKNOWLEDGED, BatchState.SUPERSEDED, BatchState.DROPPED)
# What others may change of a run that they do not hold: its message, its wake-up by a slot, and its retry.
OF_OTHERS = {"published_at", "wake_at", "retry_at"}

Row = dict[str, Any]


class RunModel(RuleBasedStateMachine):
    """The model: each run's fence and last row, each binding's members, the batches that have ended."""

    def __init__(self, make_world: Callable[[], World]) -> None:
        super().__init__()
        self.world = make_world()
        self.workers: list[Worker] = []
        self.messages: list[tuple[int, Stage]] = []
        self.fences: Counter[int] = Counter()
        self.runs: dict[int, Row] = {}
        self.batches: dict[int, Row] = {}
        self.members: dict[int, set[str]] = {one: set() for one in self.world.bindings}
        self.carried_out = 0  # jobs, when the members were compared
        self.touched: set[int] = set()  # the runs that this step may change

    # --- what must hold -------------------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        """Compare the rows with the model, and take them into it."""
        runs, found = self.look()
        self.check_batches(runs, found)
        moved = found != self.batches
        for run_id, run in runs.items():
            assert run["fence"] == self.fences[run_id]
            was = self.runs.get(run_id)
            if was is not None and (was["state"].finished or run_id not in self.touched):
                assert _without(was, OF_OTHERS) == _without(run, OF_OTHERS)
        self.runs, self.batches = runs, found
        self.touched.clear()
        self.check_runs()
        if moved or len(self.world.vendor.carried_out) > self.carried_out:
            self.carried_out = len(self.world.vendor.carried_out)
            self.check_members()
        self.check_wakes()

    def check_batches(self, runs: dict[int, Row], found: dict[int, Row]) -> None:
        jobs: set[object] = set()
        for batch_id, batch in found.items():
            was, run, state = self.batches.get(batch_id), runs[batch["run_id"]], batch["state"]
            if was is not None and was["state"] in ENDED:
                assert _without(was, {"folded_generation"}) == _without(batch, {"folded_generation"})
            elif state == BatchState.ACKNOWLEDGED:
                assert was is not None
                assert was["state"] in IN_FLIGHT
                self.acknowledged(batch_id, batch)
            if run["state"] in {RunState.FAILED, RunState.CANCELLED}:
                assert state not in {BatchState.PLANNED, BatchState.SENDING}
            if run["state"] in {RunState.SUCCEEDED, RunState.PARTIAL}:
                assert state in {*ENDED, BatchState.LOST}
            if (
                state in IN_FLIGHT
                and not run["state"].finished
                and batch["sent_at"]
                > self.world.now - timedelta(seconds=self.world.ctx.settings.job_deadline_seconds)
            ):
                jobs.add(batch["request_id"] or batch_id)
        assert len(jobs) <= 2

    def acknowledged(self, batch_id: int, batch: Row) -> None:
        with self.world.db.read() as session:
            keys = decode_keys(session.scalars(select(PushBatch.keys).where(PushBatch.id == batch_id)).one())
        mine = self.members[batch["binding_id"]]
        (mine.update if batch["direction"] == Direction.ENTER else mine.difference_update)(keys)

    def check_runs(self) -> None:
        for binding in self.world.bindings:
            states = Counter(run["state"] for run in self.runs.values() if run["binding_id"] == binding)
            assert sum(states[one] for one in UNFINISHED) <= 1
            assert states[RunState.DEFERRED] <= 1

    def check_members(self) -> None:
        for binding in self.world.bindings:
            known = self.world.state(binding)
            assert known == self.members[binding], "the state is what was acknowledged, in that order"
            count, rough = self.world.count(binding)
            assert rough or count == len(known), (
                "the count is that of the stored members, or said to be rough"
            )
            there = self.world.vendor.members.get(binding, set())
            assert known ^ there <= self.world.open_keys(binding), "elsewhere it differs only by open batches"

    def check_wakes(self) -> None:
        """No run is stuck: in a month each one is named, or a person, a slot or another run is waited for."""
        then = self.world.now + FAR
        with self.world.db.read() as session:
            named = {*outbox.unclaimed(session, then, STALE, 500), *outbox.waking(session, then, STALE, 500)}
            todo = due_work.look(session, then, STALE)
        assert todo.publish is bool(named)
        for run_id, run in self.runs.items():
            match run["state"]:
                case RunState.QUEUED | RunState.RUNNING:
                    assert run_id in named
                case RunState.WAITING:
                    assert run_id in named or run["slot_wanted"] is not None
                    assert todo.asleep or run["slot_wanted"] is None
                case RunState.HELD:
                    assert todo.held

    # --- looking --------------------------------------------------------------------------------------

    def look(self) -> tuple[dict[int, Row], dict[int, Row]]:
        with self.world.db.read() as session:
            return _rows(session, SyncRun), _rows(session, PushBatch)

    def row(self, run_id: int) -> Row:
        with self.world.db.read() as session:
            return _rows(session, SyncRun, SyncRun.id == run_id)[run_id]

    def recent(self, place: int) -> Row:
        newest = sorted(self.runs)[-8:]
        return self.runs[newest[place % len(newest)]]


def _rows(session: Any, table: Any, *which: Any) -> dict[int, Row]:
    columns = [column for column in table.__table__.columns if column.name != "keys"]
    return {row["id"]: dict(row) for row in session.execute(select(*columns).where(*which)).mappings()}


def _without(row: Row, names: set[str]) -> Row:
    return {name: value for name, value in row.items() if name not in names}
