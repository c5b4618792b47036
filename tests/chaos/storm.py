"""A running product, acts upon it in an order that a seed decides, and the promise after each of them has passed.

The promise, for every binding: the data extension is the last snapshot less the rejected, the stored state is what was
acknowledged, no download was spent twice, and no run is stuck. A binding that a webhook feeds may differ if it says so.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from config.queue_names import QueueUnavailableError
from models.errors import SyncError
from models.naming import find
from models.runs import decisions
from models.setup import bindings
from models.tables import AmplitudeProject, CohortBinding, Destination, PushBatch, Snapshot, SyncRun
from models.types import UNFINISHED, Feed, RunState, SnapshotKind, Stage, WriteMode
from tests.chaos.kinds import ACTS, kinds
from tests.contract.kept_promise import BAD, ENGAGE, OPEN, stored
from tests.product import ACTOR, SWITCHES, Product, utc_now

# Cohort, attribute, and how its rows are written; one binding has a guard that holds most of its runs.
BINDINGS = (
    ("purchrs", "Purchasers", {}),
    ("churnrk", "Churn Risk", {}),
    ("trialer", "Trialers", {"max_removal_percent": 20}),
    ("trialer", "Text Flag", {}),
    ("toldcht", "Told", {"feed": Feed.WEBHOOK}),
)
SYNCHRONOUS, TOLD = "Text Flag", "Told"
PEOPLE = [f"person-{number:03d}@example.com" for number in range(120)]
EPOCH_ACTS = 25  # then a calm
CALM_SECONDS = 120.0  # it ends within this, however busy the machine is
AWAY = (SyncError, SQLAlchemyError, RedisError, QueueUnavailableError, psycopg.Error, psutil.Error, OSError)
# After these the vendor may be at a job that has stopped counting: its deadline of seconds is over.
GIVEN_UP = {
    *("job: never known", "job: never done", "job: slow"),
    *("clock of a process jumps", "clock of the machine jumps"),
}
OFTEN = {"run started": 12, "all started": 12, "sync told": 6}  # the others 2


class Storm:
    """One product, and what is done to it."""

    def __init__(
        self, product: Product, seed: int, *, directory: Path, clocks: Any, primary: Any = None
    ) -> None:
        """`directory`: where the product has its data and its log. `primary`: the database's server, if it has one."""
        self.product, self.seed, self.directory = product, seed, directory
        self.clocks, self.primary = clocks, primary
        self.feed: Any = None  # once there is something to tell
        self.database = product.db.dialect
        self.doubts: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.syncs = 0
        self.bound: list[CohortBinding] = []
        self.members: dict[str, set[str]] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._rules: list[dict[str, Any]] = []
        self._ended: set[int] = set()
        self._arrange()

    # --- the storm

    def blow(self, seconds: float) -> None:
        """Acts and calms, until so many seconds have passed and a calm has shown that all is right."""
        names = kinds(self)
        weights = [OFTEN.get(name, 2) for name in names]
        end, rng = time.monotonic() + seconds, random.Random(f"{self.seed}")
        for number in count(1):
            kind = rng.choices(names, weights)[0]
            self._do(kind, random.Random(f"{self.seed} {number}"))
            self._wait(rng.uniform(0.0, 0.5))
            over = time.monotonic() > end
            if over or number % EPOCH_ACTS == 0:
                self.calm()
            if over:
                return

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do it after that time, or when it gets calm."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), what))

    def fault(self, rule: dict[str, Any]) -> None:
        """One more thing that goes wrong at the vendors, beside the last few."""
        self._rules = [*self._rules[-3:], rule]
        self.product.sandbox.fault(*self._rules)

    def turn(self, number: int, rng: random.Random) -> None:
        """Other members of a binding's cohort."""
        cohort = self.bound[number].cohort_id
        self.members[cohort] = self.draw(rng)
        self.product.cohort(cohort, members=sorted(self.members[cohort]))

    def draw(self, rng: random.Random) -> set[str]:
        """Some people, and now and then one whose row Marketing Cloud refuses."""
        return set(rng.sample(PEOPLE, rng.randint(20, 90))) | ({BAD} if rng.random() < 0.3 else set())

    def start(self, binding: CohortBinding, **given: Any) -> bool:
        """A run of it; False if one is at work."""
        with suppress(QueueUnavailableError):  # the scheduler publishes it
            try:
                self.product.start(binding, **given)
            except SyncError:
                return False
        return True

    def resume(self, binding: CohortBinding) -> None:
        """Out of its pause, whoever paused it."""
        with self.product.db.write() as session:
            bindings.resume_binding(session, binding.name, timing=None, now=utc_now(), actor=ACTOR)

    def unfinished(self) -> list[SyncRun]:
        with self.product.db.read() as session:
            return list(
                session.scalars(select(SyncRun).where(SyncRun.state.in_([*UNFINISHED, RunState.DEFERRED])))
            )

    def pids(self) -> Iterator[int]:
        """The product's processes: those of its stack, the queue's server aside, and the receiver."""
        stack = self.product.stack
        yield from filter(None, (*map(stack.pid, stack.names), self.feed.pid()))

    # --- the calm

    def calm(self) -> None:
        """Nothing goes wrong any more: what is under way ends by itself, and one more run makes all of it right."""
        while self._later:
            self._thaw()
        self._rules = []
        self.product.sandbox.fault()
        self._patiently(lambda: [self.resume(binding) for binding in self.bound])
        self.feed.whole_sync(self.bound[self.told].cohort_id)
        self.until_idle("what was under way")
        self._patiently(self.feed.pass_by)
        self._patiently(lambda: [self.start(binding) for binding in self.bound])
        self.until_idle("the runs after the storm")
        self.feed.honest(self)
        for binding in self.bound:
            self._right(binding)
        self._nothing_is_left()

    def until_idle(self, what: str) -> None:
        end = time.monotonic() + CALM_SECONDS
        while runs := self._patiently(self.unfinished):
            facts = [(r.id, r.state, r.stage, r.attempt, r.error_code, str(r.wake_at)) for r in runs]
            assert time.monotonic() < end, f"stuck: {what}, seed {self.seed}: {facts}"
            self._patiently(lambda runs=runs: self._attend(runs))
            time.sleep(0.1)

    def _attend(self, runs: list[SyncRun]) -> None:
        """What a person does: approve what is held, but not by a list in doubt. Limits of minutes are over."""
        for run in runs:
            if run.state == RunState.HELD:
                doubtful = (run.error_code or "").startswith("WEBHOOK_")
                decide = decisions.reject if doubtful else decisions.approve
                with self.product.db.write() as session:
                    decide(session, run.id, now=utc_now(), actor=ACTOR)
            if run.state == RunState.WAITING and "RATE" in (run.error_code or ""):
                self.product.wake(run.id)
            elif run.state == RunState.WAITING and self._waits_for_a_sync(run):
                self.feed.pass_by()
                self.product.wake(run.id)

    def _waits_for_a_sync(self, run: SyncRun) -> bool:
        told = run.binding_id == self.bound[self.told].id and run.stage == Stage.SNAPSHOT
        return told and run.reconcile is None and run.snapshot_id is None and run.error_code is None

    def _right(self, binding: CohortBinding) -> None:
        run = self.last(binding)
        wanted = self.members[binding.cohort_id] - {BAD}
        where = f"{binding.name}, run {run.id}, seed {self.seed}"
        refused = {row.key for row in self.product.rejections(binding)} if run.rejected else set()
        # Who is refused is so each time. One who left is too, as long as it is not sure that nothing of it was taken.
        assert refused in ({BAD}, set()), (where, refused)
        assert refused or BAD not in self.members[binding.cohort_id], (where, "a refusal was not noted")
        facts = (run.state, run.error_code, run.rejected)
        wanted_facts = (RunState.PARTIAL if refused else RunState.SUCCEEDED, None, len(refused))
        assert facts == wanted_facts, (where, facts, self.history(binding))
        flagged, known = self.product.flagged(binding.attribute), stored(self.product.db, binding.id)
        assert flagged == wanted, (where, f"missing {wanted - flagged}, too many {flagged - wanted}")
        assert known == wanted, (where, f"forgotten {wanted - known}, made up {known - wanted}")
        self.syncs += 1

    def history(self, binding: CohortBinding) -> list[str]:
        """The last runs of a binding, for whoever looks for what went wrong."""
        with self.product.db.read() as session:
            query = select(SyncRun).where(SyncRun.binding_id == binding.id).order_by(SyncRun.id.desc())
            return [
                f"{run.id} {run.trigger} {run.state} {run.error_code} at {run.created_at:%T}-{run.finished_at:%T}, "
                f"snapshot {run.snapshot_id} {run.snapshot and f'{run.snapshot.requested_at:%T} {run.snapshot.kind}'}, "
                f"{run.members} members, +{run.entered} -{run.exited} acknowledged {run.acknowledged} "
                f"rejected {run.rejected}"
                for run in session.scalars(query.limit(4))
            ]

    def last(self, binding: CohortBinding) -> SyncRun:
        with self.product.db.read() as session:
            query = select(SyncRun).where(SyncRun.binding_id == binding.id).order_by(SyncRun.id.desc())
            return session.scalars(query.limit(1)).one()

    def _nothing_is_left(self) -> None:
        with self.product.db.read() as session:
            ended = session.execute(select(SyncRun.id, SyncRun.state, SyncRun.error_code)).all()
            assert session.scalar(select(func.count()).where(PushBatch.state.in_(OPEN))) == 0
            asked = session.scalar(select(func.count()).where(Snapshot.kind == SnapshotKind.DOWNLOAD))
        assert self.product.downloads() <= (asked or 0), f"a download was spent twice, seed {self.seed}"
        if not self.counts.keys() & GIVEN_UP:
            assert self.product.most_in_flight() <= 2, f"too many jobs at once, seed {self.seed}"
        for run_id, state, code in ended:
            if run_id not in self._ended:
                self._ended.add(run_id)
                self.ends[code or state] += 1
        crashes = self.product.vendor()["crashes"]
        assert crashes == [], crashes

    # --- how

    def _do(self, kind: str, rng: random.Random) -> None:
        """An act; what is away because of an earlier one makes it none."""
        with suppress(*AWAY):
            if ACTS[kind](self, rng) is not False:
                self.counts[kind] += 1

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._thaw(time.monotonic())
            time.sleep(0.02)

    def _thaw(self, now: float = float("inf")) -> None:
        while self._later and self._later[0][0] <= now:
            with suppress(*AWAY):
                heapq.heappop(self._later)[2]()

    def _patiently(self, what: Callable[[], Any]) -> Any:
        """Ask again while a server is still coming back."""
        end = time.monotonic() + CALM_SECONDS
        while True:
            try:
                return what()
            except AWAY:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _arrange(self) -> None:
        product = self.product
        product.begin()
        product.sandbox.switch(
            amplitude_rate_per_10_minutes=0,
            amplitude_monthly_quota=0,
            amplitude_parallel=0,
            async_max_bytes=2_000,
            **{**SWITCHES, "async_queue_seconds": 0.05, "async_execute_seconds": 0.05},
        )
        fields = [{"name": "Contact Key", "type": "EmailAddress", "primary_key": True}]
        fields += [{"name": name, "type": "Boolean"} for _, name, _ in BINDINGS]
        product.sandbox.door("PUT", ENGAGE, {"fields": fields})
        product.destination(f"{product.name} synchronous")
        with product.db.write() as session:
            find(session, AmplitudeProject, product.name).monthly_quota = 1_000_000
            other = session.scalars(select(Destination).order_by(Destination.id.desc()).limit(1)).one()
            other.write_mode = WriteMode.SYNC
        rng = random.Random(f"{self.seed} at first")
        for number, (cohort, attribute, given) in enumerate(BINDINGS):
            destination = f"{product.name} synchronous" if attribute == SYNCHRONOUS else product.name
            self.bound.append(product.bind(cohort, attribute, destination=destination, **given))
            self.turn(number, rng)
        self.told = [attribute for _, attribute, _ in BINDINGS].index(TOLD)
