"""One binding whose cohort is another at each run, and the promise about it: whatever happened on the way."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models.contact_keys.codec import decode_keys, encode_keys
from models.database import Database
from models.direction import Direction
from models.membership import snapshots, state, webhooks
from models.membership.webhooks import Column, MessageHead
from models.runs import decisions, lifecycle, reconciling
from models.tables import (
    AmplitudeProject,
    CohortBinding,
    CohortList,
    CohortListPart,
    MemberChunk,
    PushBatch,
    SyncRun,
)
from models.types import BatchState, Feed, RunState, Stage, Trigger, WriteMode
from tests.contract.product import Product, status
from tests.product import STATUS

ENGAGE = "data-extensions/Amplitude%20Engage"
BAD = "not an address"  # the key is an e-mail address here: this row is refused each time
LOST = "SNAPSHOT_REQUEST_LOST"  # how a run ends that may have spent its download for nothing
OPEN = (BatchState.PLANNED, BatchState.SENDING, BatchState.SUBMITTED)


@dataclass(frozen=True)
class Scenario:
    """What happens to a run, apart from being killed."""

    faults: tuple[dict[str, Any], ...] = ()
    switches: Mapping[str, Any] = field(default_factory=dict)
    binding: Mapping[str, Any] = field(default_factory=dict)
    patches: Mapping[str, Any] = field(default_factory=dict)
    mode: WriteMode = WriteMode.ASYNC
    people: int = 24
    bad: bool = False  # one member's row is refused
    same: bool = False  # the members are as they were
    full: bool = False
    full_next: bool = False
    unknown: bool = False  # who is flagged is not in the state
    given: bool = False  # a cohort file of the operator's
    reconciled: bool = False  # a download becomes the base of a webhook's list
    times_out: bool = False  # the cohort's file is never made
    earlier: bool = False  # an earlier run was cancelled while the vendor had its job

    @property
    def told(self) -> bool:
        """Whether the members come by webhook."""
        return self.binding.get("feed") == Feed.WEBHOOK


class World:
    """The binding, its cohort as it is now, and what both sides hold."""

    def __init__(self, product: Product, scenario: Scenario) -> None:
        self.product, self.scenario, self.rng = product, scenario, random.Random(7)
        product.sandbox.switch(
            amplitude_rate_per_10_minutes=0,
            amplitude_monthly_quota=0,
            amplitude_parallel=0,
            **scenario.switches,
        )
        fields = [
            {"name": "Contact Key", "type": "EmailAddress", "primary_key": True},
            {"name": "Purchasers", "type": "Boolean"},
        ]
        product.sandbox.door("PUT", ENGAGE, {"fields": fields})
        product.ctx.settings.job_deadline_seconds = 30.0
        product.source()
        product.destination(write_mode=scenario.mode)
        self.binding = product.binding(**{"max_removal_percent": 100, **scenario.binding})
        self.members: set[str] = set()
        self._in_vain = False  # nobody will make the file that is waited for
        self._turn()
        assert self.ends(self._dispatch()).state in {RunState.SUCCEEDED, RunState.PARTIAL}

    def start(self) -> int:
        """A run that has to do what the scenario says."""
        self._in_vain = self.scenario.times_out
        if self.scenario.earlier:
            self._leave_a_job()
        if not self.scenario.same:
            self._turn()
        self.product.sandbox.fault(*self.scenario.faults)
        with self.product.ctx.db.write() as session:
            mine = session.get_one(CohortBinding, self.binding.id)
            if self.scenario.unknown:
                session.execute(delete(MemberChunk))
                session.execute(delete(PushBatch))
            mine.full_next = self.scenario.full_next or self.scenario.unknown
            if self.scenario.reconciled:
                return reconciling.ask(session, mine, now=self.product.ctx.clock(), actor="test").id
        return self._dispatch(full=self.scenario.full)

    def lease_ends(self, run_id: int) -> None:
        """Time passes until the dead worker's claim is over."""
        until = self.product.look(run_id).lease_until
        if until is not None:
            self.product.moved += max(timedelta(), until - self.product.ctx.clock()) + timedelta(seconds=1)

    def ends(self, run_id: int) -> SyncRun:
        """The run, claimed by whoever is left, until it has ended; somebody approves what is held."""
        product = self.product
        for _ in range(300):
            run = product.look(run_id)
            if RunState(run.state).finished:
                return run
            if run.state == RunState.HELD:
                with product.ctx.db.write() as session:
                    decisions.approve(session, run_id, now=product.ctx.clock(), actor="test")
            if self._in_vain and run.state == RunState.WAITING and run.stage == Stage.SNAPSHOT:
                product.moved += timedelta(seconds=product.ctx.settings.snapshot_deadline_seconds)
            product.claim(run_id)
        raise AssertionError((run.state, run.stage, run.error_code))

    def goes_on(self, run_id: int, spent: int) -> None:
        """The promise: after the run, or after the next one where this one could not keep it and said so.

        `spent`: downloads before it.
        """
        run = self.ends(run_id)
        assert self.spent() - spent <= 1
        if run.state == RunState.FAILED:
            lost = run.error_code == LOST and run.stage == Stage.SNAPSHOT
            assert lost or (self.scenario.times_out and run.error_code == "SNAPSHOT_DEADLINE"), run.error_code
            self.product.sandbox.fault()
            self._in_vain = False
            run = self.ends(self._dispatch())
        verdict = RunState.PARTIAL if self.scenario.bad else RunState.SUCCEEDED
        assert (run.state, run.error_code, run.rejected) == (verdict, None, int(self.scenario.bad))
        kept = self.members - {BAD}
        rows = self.product.sandbox.rows()
        assert {row["Contact Key"] for row in rows if row["Purchasers"]} == kept
        assert stored(self.product.ctx.db, self.binding.id) == kept
        with self.product.ctx.db.read() as session:
            assert session.scalar(select(func.count()).where(PushBatch.state.in_(OPEN))) == 0
            assert _uncounted(session) == []

    def spent(self) -> int:
        """Downloads until now."""
        used: int = self.product.sandbox.door("GET", "state")["amplitude"]["downloads_used"]
        return used

    def _dispatch(self, *, full: bool = False) -> int:
        now = self.product.ctx.clock()
        with self.product.ctx.db.write() as session:
            mine, upload = session.get_one(CohortBinding, self.binding.id), None
            if self.scenario.given:
                text = "user_id\n" + "".join(f"{key}\n" for key in sorted(self.members))
                upload = snapshots.store_upload(session, mine, BytesIO(text.encode()), now=now).id
            run = lifecycle.dispatch(
                session,
                mine,
                trigger=Trigger.MANUAL,
                scheduled_for=now,
                now=now,
                snapshot_id=upload,
                full=full,
                actor="test",
            )
        return run.id

    def _turn(self) -> None:
        """Half of the members are others; the product's own limits begin anew, as if time had passed."""
        people = {f"person{number}@example.com" for number in range(self.scenario.people)}
        before = self.members
        stay = self.rng.sample(sorted(before - {BAD}), len(before - {BAD}) // 2)
        enter = self.rng.sample(sorted(people - before), len(people) // 2 - len(stay))
        self.members = {*stay, *enter} | ({BAD} if self.scenario.bad else set())
        self.product.sandbox.door("PUT", "cohorts/purchrs", {"members": sorted(self.members)})
        for key in self.product.ctx.redis.scan_iter("cohort-sync:limit:*"):
            self.product.ctx.redis.delete(key)
        if self.scenario.told:
            self._tell(self.members - before, entered=True)
            self._tell(before - self.members, entered=False)

    def _tell(self, keys: set[str], *, entered: bool) -> None:
        now = self.product.ctx.clock()
        computed = round(now.timestamp() * 1_000_000)
        head = MessageHead("purchrs", f"{computed} {entered}", entered, computed)
        with self.product.ctx.db.write() as session:
            source = session.scalars(select(AmplitudeProject.id)).one()
            columns = {"user_id": Column(len(keys), 0, encode_keys(sorted(keys)))}
            webhooks.accept(session, source, head, columns, now=now)

    def _leave_a_job(self) -> None:
        """A run that gives up while the vendor has its rows and has not begun with them."""
        self._turn()
        slow = {"path": "/rows$", "times": 1, "action": {"kind": "job_slow", "seconds": 0.5}}
        self.product.sandbox.fault(slow, status(STATUS, 500, "", times=1))
        settings = self.product.ctx.settings
        usual, settings.max_attempts = settings.max_attempts, 1
        assert self.product.work(self._dispatch()).state == RunState.FAILED
        settings.max_attempts = usual


def _uncounted(session: Session) -> list[Any]:
    """Parts that do not count, of states and of lists: where a kill has left any, somebody has to have removed them."""
    return [
        part
        for part, owner, current in (
            (MemberChunk, MemberChunk.binding_id == CohortBinding.id, CohortBinding.state_generation),
            (CohortListPart, CohortListPart.list_id == CohortList.id, CohortList.generation),
        )
        for part in session.execute(
            select(part.generation, part.part).where(owner, part.generation != current)
        )
    ]


def stored(db: Database, binding_id: int) -> set[str]:
    """Whom the product takes for flagged."""
    with db.read() as session:
        found = {key for blob in state.iter_chunks(session, binding_id) for key in decode_keys(blob)}
        for direction, blob in state.iter_deltas(session, binding_id):
            keys = set(decode_keys(blob))
            found = found | keys if direction == Direction.ENTER else found - keys
    return found
