"""Runs, batches and operators' acts in any order, against a model of a few dicts: what must hold after each step.

`tests/contract/run_world.py` is the world. `make test` walks 400 steps, in which workers do some 1,000
transactions, the same each time, and a quarter of that on PostgreSQL. Others, as many as wanted (`RUN_MACHINE_WALKS`,
50 steps each):
`python -m pytest tests/contract/test_run_machine.py --hypothesis-profile=default --hypothesis-seed=5`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.orm import Session

from config.settings import Settings
from models.database import Database
from models.errors import ConfigurationError, LeaseLost
from models.membership.snapshots import FreshnessPolicy
from models.runs import claims, decisions, manual, outbox, slots
from models.runs.claims import Claim
from models.setup import bindings
from models.tables import SyncRun
from models.types import UNFINISHED, RunState, Stage
from scheduler.tick import tick
from tests.contract.run_model import STALE, Row, RunModel
from tests.contract.run_world import Worker, World
from tests.standby import execute

DRAIN = 400  # rounds in which every run ends once nothing goes wrong any more

NAMES = st.sampled_from(["ann", "ben", "cy"])
BINDINGS = st.sampled_from(["first", "second", "third"])
PLACE = st.integers(0, 7)
KEYS = st.integers(0, 1023).map(lambda bits: {"abcdefghij"[n] for n in range(10) if bits >> n & 1})
LUCK = st.sampled_from(
    ["well"] * 16 + ["passing", "limited", "terminal", "held", "not taken", "never came", "no answer"]
)


Databases: TypeAlias = Callable[[], Database]

WALKS = int(os.environ.get("RUN_MACHINE_WALKS", "8"))  # of 50 steps


class RunMachine(RunModel):
    """What may happen to runs, in any order."""

    @initialize()
    def begin(self) -> None:
        """A run of each binding is about to send."""
        self.ask("third", queue=False)
        for _ in range(3):
            self.go_on("ann", "well", set("abcdefg"), 1)

    # --- what workers do ------------------------------------------------------------------------------

    @precondition(lambda self: self.messages)
    @rule(place=PLACE, name=NAMES, again=st.booleans())
    def hear(self, place: int, name: str, again: bool) -> None:
        """A worker gets a message, which may come once more."""
        message = self.messages[place % len(self.messages)]
        if not again:
            self.messages.remove(message)
        self.take(*message, name)
        self.take(*message, "double")

    def take(self, run_id: int, stage: Stage, name: str) -> None:
        run, now = self.row(run_id), self.world.now
        free = run["stage"] == stage and (
            run["state"] == RunState.QUEUED
            or (
                run["state"] == RunState.WAITING
                and run["wake_at"] is not None
                and run["wake_at"] <= now + claims.CLOCK_SLACK
            )
            or (
                run["state"] == RunState.RUNNING and (run["lease_until"] is None or run["lease_until"] <= now)
            )
        )
        worker = self.world.claim(run_id, stage, name)
        assert (worker is not None) is free
        if worker is not None:
            self.fences[run_id] += 1
            assert worker.hold.claim.fence == self.fences[run_id]
            self.workers.append(worker)
            self.touched.add(run_id)

    @precondition(lambda self: self.workers)
    @rule(place=PLACE, luck=LUCK, cohort=KEYS, steps=st.integers(1, 4))
    def work(self, place: int, luck: str, cohort: set[str], steps: int) -> None:
        """A worker does its next transactions, the last one with this luck."""
        worker = self.workers[place % len(self.workers)]
        for left in reversed(range(steps)):
            if not self.step(worker, "well" if left else luck, cohort):
                break
            self.check()

    def step(self, worker: Worker, luck: str, target: set[str]) -> bool:
        """Whether the worker goes on; one that has lost its run changes nothing."""
        run_id, now = worker.hold.claim.run_id, self.world.now
        run = self.row(run_id)
        holds = run["state"] == RunState.RUNNING and self.fences[run_id] == worker.hold.claim.fence
        before = None if holds and not worker.taken else self.look()
        over = run["lease_until"] is None or run["lease_until"] <= now
        try:
            goes_on = self.world.step(worker, luck, target)
        except LeaseLost:
            assert not holds or (over and worker.taken), "only a worker whose run is another's is refused"
            assert self.look() == before
            goes_on = False
        else:
            assert holds or self.look() == before, "a worker without the run did something"
        if holds:
            self.touched.add(run_id)
        if not goes_on:
            self.workers.remove(worker)
            after = self.row(run_id)
            if after["state"] == RunState.RUNNING and after["lease_until"] is None:
                self.messages.append((run_id, after["stage"]))
        return goes_on

    @rule(name=NAMES, luck=LUCK, cohort=KEYS, steps=st.integers(1, 5))
    def go_on(self, name: str, luck: str, cohort: set[str], steps: int) -> None:
        """Everything that is published is taken, and every worker works on."""
        self.world.later(5)
        self.schedule()
        self.check()
        for message in self.heard():
            self.take(*message, name)
        for worker in list(self.workers):
            for left in reversed(range(steps)):
                if not self.step(worker, "well" if left else luck, cohort):
                    break
                self.check()

    @precondition(lambda self: self.workers)
    @rule(place=PLACE)
    def die(self, place: int) -> None:
        """A worker is killed."""
        self.workers.pop(place % len(self.workers))

    def give_back(self, name: str, lost: bool) -> None:
        """A worker's process is gone, and somebody knows."""
        given = claims.give_back(self.world.db, name, now=self.world.now, lost=lost)
        self.touched.update(given)
        self.workers = [one for one in self.workers if one.name != name]

    # --- time -----------------------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        """Every worker that is alive renews its lease."""
        self.world.later(seconds)
        for worker in list(self.workers):
            claim, run = worker.hold.claim, self.row(worker.hold.claim.run_id)
            good = (
                run["state"] == RunState.RUNNING
                and run["lease_until"] is not None
                and run["lease_until"] > self.world.now
                and self.fences[claim.run_id] == claim.fence
            )
            try:
                claims.renew(self.world.db, claim, now=self.world.now, lease=30)
            except LeaseLost:
                assert not good
            else:
                assert good
                self.touched.add(claim.run_id)

    @rule(
        seconds=st.sampled_from([31, 120, 700, 2000, 3600]), name=NAMES, place=PLACE, luck=LUCK, cohort=KEYS
    )
    def freeze(self, seconds: int, name: str, place: int, luck: str, cohort: set[str]) -> None:
        """Every worker was frozen for so long, and others have its run; then one of the frozen goes on."""
        frozen = list(self.workers)
        self.world.later(seconds)
        self.schedule()
        for message in self.heard():
            self.take(*message, name)
        for worker in self.workers[len(frozen) :]:
            self.step(worker, "well", cohort)
        self.check()
        if frozen:
            self.step(frozen[place % len(frozen)], luck, cohort)

    def heard(self) -> list[tuple[int, Stage]]:
        """Every message, in its order."""
        messages, self.messages = self.messages, []
        return messages

    def schedule(self) -> None:
        """A scheduler's tick, and what it publishes."""
        world, before = self.world, self.look()[0]
        tick(world.db, world.now)
        with world.db.write() as session:
            slots.wake_all(session, slots.SlotRules.of(world.ctx.settings), now=world.now)
            named = {
                **outbox.unclaimed(session, world.now, STALE, 100),
                **outbox.waking(session, world.now, STALE, 100),
            }
            self.messages += outbox.mark_published(session, list(named), world.now, STALE)
        for run_id, after in self.look()[0].items():
            was = before.get(run_id)
            if was is None or was["state"] == after["state"]:
                continue
            self.touched.add(run_id)
            over = was["held_until"] is not None and was["held_until"] <= world.now
            assert (was["state"], after["state"]) == (RunState.DEFERRED, RunState.QUEUED) or (
                (was["state"], after["state"]) == (RunState.HELD, RunState.CANCELLED) and over
            )

    # --- what people do -------------------------------------------------------------------------------

    def ask(self, name: str, queue: bool) -> None:
        """A run by hand; no two are asked for in the same microsecond."""
        self.world.later(0.001)
        states = [
            one["state"] for one in self.runs.values() if self.world.bindings[one["binding_id"]] == name
        ]
        begun = [one for one in states if one in UNFINISHED]
        refused = bool(begun) and (not queue or RunState.DEFERRED in states)
        fresh = FreshnessPolicy.of(self.world.ctx.settings)
        try:
            with self.world.db.write() as session:
                made = manual.make(session, name, fresh=fresh, now=self.world.now, actor="ann", queue=queue)
                found = made.id, made.state
        except ConfigurationError as error:
            if (error.code, refused) != ("RUN_UNFINISHED", True):
                raise
            return
        assert not refused
        assert found[1] == (RunState.DEFERRED if begun else RunState.QUEUED)
        if not begun:
            self.messages.append((found[0], Stage.SNAPSHOT))

    def cancel(self, place: int) -> None:
        """One of the newest runs; nobody approves or rejects it unless it is held."""
        run = self.recent(place)
        if run["state"] != RunState.HELD:
            self.act(run, False, decisions.approve)
            self.act(run, False, decisions.reject)
        self.act(run, not run["state"].finished, decisions.cancel)

    def decide(self, place: int, yes: bool) -> None:
        """About a held run."""
        held = [one for one in self.runs.values() if one["state"] == RunState.HELD]
        if not held:
            return
        run = held[place % len(held)]
        self.act(run, True, decisions.approve if yes else decisions.reject)
        if yes:
            self.messages.append((run["id"], run["stage"]))

    def act(self, run: Row, allowed: bool, what: Callable[..., Any]) -> None:
        before = self.look()
        try:
            with self.world.db.write() as session:
                what(session, run["id"], now=self.world.now, actor="ann")
        except ConfigurationError as error:
            if (error.code, allowed) != ("RUN_STATE", False):
                raise
            assert self.look() == before
            return
        assert allowed
        self.touched.add(run["id"])

    @rule(
        name=BINDINGS,
        queue=st.booleans(),
        place=PLACE,
        what=st.sampled_from(["ask"] * 3 + ["cancel", "decide", "decide", "pause", "resume", "give back"]),
    )
    def person(self, name: str, queue: bool, place: int, what: str) -> None:
        """Somebody does something."""
        if what == "ask":
            self.ask(name, queue)
        elif what == "cancel":
            self.cancel(place)
        elif what == "decide":
            self.decide(place, queue)
        elif what == "give back":
            self.give_back("ann", queue)
        else:
            self.pause(name, what == "pause")

    def pause(self, name: str, stop: bool) -> None:
        """Or resume."""
        with self.world.db.write() as session:
            if stop:
                bindings.pause_binding(session, name, reason="x", now=self.world.now, actor="ann")
            else:
                bindings.resume_binding(session, name, timing=None, now=self.world.now, actor="ann")

    def teardown(self) -> None:
        """From here on nothing goes wrong: every run ends."""
        try:
            self.drain()
        finally:
            self.world.db.dispose()

    def drain(self) -> None:
        self.workers.clear()
        for name in self.world.bindings.values():
            self.pause(name, stop=False)
        there = set(self.look()[0])
        for _ in range(DRAIN):
            left = [
                run for run_id, run in self.look()[0].items() if run_id in there and not run["state"].finished
            ]
            if not left:
                return
            for run in left:
                if run["state"] == RunState.HELD:
                    self.act(run, True, decisions.approve)
            self.world.later(300)
            self.schedule()
            self.check()
            while self.messages:
                self.take(*self.messages.pop(), "ann")
                while self.workers:
                    self.step(self.workers[0], "well", {"a", "b"})
            self.check()
        raise AssertionError([(run["id"], run["state"], run["stage"], run["error_code"]) for run in left])


@pytest.fixture
def sqlite_databases(sqlite_template: Path, tmp_path: Path) -> Databases:
    """Each call makes one, empty and current."""
    count = iter(range(10**9))

    def make() -> Database:
        mine = tmp_path / str(next(count))
        mine.mkdir()
        shutil.copy(sqlite_template, mine / "cohort-sync.db")
        return Database(Settings(_env_file=None, data_dir=mine, redis_url=""))

    return make


@pytest.fixture
def postgresql_databases(postgres_url: str, postgres_template: str, tmp_path: Path) -> Databases:
    """The same on PostgreSQL."""
    count = iter(range(10**9))

    def make() -> Database:
        name = f"machine_{next(count)}"
        execute(
            postgres_url,
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE {postgres_template}",
        )
        url = postgres_url.replace("/postgres?", f"/{name}?")
        return Database(Settings(_env_file=None, data_dir=tmp_path, database_url=url, redis_url=""))

    return make


def walk(databases: Databases, **given: Any) -> None:
    """Let the machine walk; each example has a database of its own."""
    made: list[Database] = []

    def make_world() -> World:
        made.append(databases())
        return World(made[-1])

    try:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: RunMachine(make_world),
            settings=hypothesis_settings(
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                **{
                    "max_examples": WALKS,
                    "stateful_step_count": 50,
                    "phases": [Phase.generate],
                    **given,
                },
            ),
        )
    finally:
        for database in made:
            database.dispose()


def test_any_order_of_acts_leaves_runs_batches_and_members_right(sqlite_databases: Databases) -> None:
    walk(sqlite_databases)


def test_so_it_does_on_postgresql(postgresql_databases: Databases) -> None:
    walk(postgresql_databases, max_examples=max(1, WALKS // 4))


def test_commits_without_a_fence_are_found(
    sqlite_databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfenced(db: Database, held: Claim, **given: Any) -> AbstractContextManager[tuple[Session, SyncRun]]:
        with db.read() as session:
            newest = session.get_one(SyncRun, held.run_id).fence
        return claims.fenced(db, replace(held, fence=newest), **given)

    monkeypatch.setattr("worker.claim.fenced", unfenced)
    with pytest.raises(AssertionError):
        walk(sqlite_databases)
