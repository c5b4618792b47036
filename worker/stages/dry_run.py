"""What a run would do, found out without being one: it asks, compares and checks, and pushes nothing.

It is no run with a mark on it that goes through the queue: such a run would take the binding's one place, so that a
plan kept a sync from starting; the contact keys that it shows would have to be stored for whoever asked; and every
stage would have two meanings. Here the run exists in this process alone, and an unfinished one of the binding never
notices. The first stage is the very one of a run: so a download is limited, journalled before it is asked for, never
asked for twice, and left in the ledger for the next run to use, wherever this process is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from models.database import one_state
from models.direction import Direction
from models.errors import (
    ConfigurationError,
    HeldForApproval,
    RateLimited,
    TerminalError,
    TransientError,
)
from models.membership import state
from models.runs import unresolved_batches
from models.runs.claims import Claim
from models.tables import CohortBinding, Snapshot, SyncRun
from models.types import RunState, SnapshotKind, Stage, Trigger, WriteMode
from worker.claim import ClaimedRun, backoff
from worker.context import Context
from worker.inspection.check import require_destination
from worker.inspection.estimate import jobs
from worker.membership.diff import Diff, DiffCounts, StateReader, compare
from worker.membership.key_sources import CsvFile, KeySource, blobs_of
from worker.stages import (
    blackout,
    long_keys,
    snapshot_store,
    webhook_snapshot,
)
from worker.stages.diff import SAMPLES, guard_past, odd_examples
from worker.stages.guards import change_guard, file_guard, webhook_trust
from worker.stages.plan import planned
from worker.stages.snapshot import bring
from worker.vendors.marketing_cloud.client import BATCH_ROWS

Result = TypeVar("Result")


@dataclass(frozen=True)
class Findings:
    """What a run by hand would do now. `requests` are the rows of each upsert, none where a check fails.

    `held` and `held_on_schedule` are the guards' objections to a run by hand and to a scheduled one. `odd_examples`
    are masked.
    """

    counts: DiffCounts
    samples: dict[Direction, list[str]]
    requests: list[int]
    failed: ConfigurationError | None
    held: HeldForApproval | None
    held_on_schedule: HeldForApproval | None
    odd_examples: str


@dataclass
class DryRun(ClaimedRun):
    """A hold on a run that stands in no table. It waits where a run would leave its slot, until `until`."""

    draft: SyncRun = field(kw_only=True)
    until: float = field(kw_only=True)

    @classmethod
    def of(cls, ctx: Context, binding: CohortBinding, *, force: bool, patience: float) -> DryRun:
        """As of a run by hand, at this moment."""
        draft = SyncRun(
            binding=binding,
            binding_id=binding.id,
            trigger=Trigger.MANUAL,
            scheduled_for=ctx.clock(),
            force=force,
            state=RunState.RUNNING,
            stage=Stage.SNAPSHOT,
        )
        return cls(ctx, Claim(0, 0), draft=draft, until=time.monotonic() + patience)

    @contextmanager
    def transaction(self) -> Iterator[tuple[Session, SyncRun]]:
        """A transaction beside the run in memory: there is no row to be fenced, and no worker to lose it to."""
        with self.ctx.db.write() as session:
            yield session, self.draft

    def load(self) -> SyncRun:
        """The run, with its snapshot as that stands."""
        if self.draft.snapshot_id is not None:
            with self.ctx.db.read() as session:
                self.draft.snapshot = session.get_one(Snapshot, self.draft.snapshot_id)
        return self.draft

    @property
    def downloads(self) -> int:
        """Downloads that were asked for here: one at most."""
        return sum(client.downloads for client in self._amplitude)

    def snapshot(self) -> Snapshot:
        """A completed one: shared, or paid for."""
        while self.draft.stage == Stage.SNAPSHOT:
            self._patiently(lambda: bring(self))
            if self.draft.stage == Stage.SNAPSHOT and self.draft.wake_at is not None:
                self._sleep((self.draft.wake_at - self.now).total_seconds())
        found = self.load().snapshot
        if found is None:
            raise TerminalError("INTERNAL", kind="a snapshot that is none")
        return found

    def find(self, file: Path | None = None) -> Findings:
        """What a run would do with the snapshot, or with a person's own file."""
        snapshot = None if file is not None else self.snapshot()
        snapshot_store.sweep(self.ctx.settings.data_dir)
        with self.workdir("plan") as folder:
            return self._judged(self._compare(self._cohort(snapshot, file, folder), folder))

    def _cohort(self, snapshot: Snapshot | None, file: Path | None, folder: Path) -> KeySource:
        """The keys; not where workers keep them, for nobody may come by here to remove them."""
        gone = self.forgotten()
        if snapshot is not None and snapshot.kind == SnapshotKind.WEBHOOK:
            webhook_snapshot.write(self, snapshot, folder / "cohort.keys", gone)
            return blobs_of(folder / "cohort.keys", snapshot.property)
        if snapshot is not None:
            self._download(snapshot, folder / "cohort.csv")
        column = self.draft.binding.destination.contact_key_property
        limit = self.ctx.settings.snapshot_max_bytes
        given = CsvFile(file or folder / "cohort.csv", column, limit)
        if not gone:
            return given
        snapshot_store.leave_out(given, folder / "allowed.csv", gone)
        return CsvFile(folder / "allowed.csv", column, limit)

    def _download(self, snapshot: Snapshot, path: Path) -> None:
        request_id = snapshot.request_id
        if request_id is None:
            raise TerminalError("SNAPSHOT_REQUEST_LOST")
        with self.amplitude(self.draft.binding.project) as amplitude:
            limit = self.ctx.settings.snapshot_max_bytes
            self._patiently(lambda: amplitude.download(request_id, path, max_bytes=limit))

    def _compare(self, cohort: KeySource, workdir: Path) -> Diff:
        binding = self.draft.binding
        with self.ctx.db.read() as session:
            one_state(session)  # a run of the binding may end meanwhile, and fold its batches into the base
            reader = StateReader(
                chunks=lambda: state.iter_chunks(session, binding.id),
                deltas=lambda: state.iter_deltas(session, binding.id),
                uncertain=lambda: unresolved_batches.iter_lost(session, binding.id),
                members=binding.member_count,
            )
            return compare(cohort, reader, workdir=workdir, seed=self.ctx.rng.getrandbits(63))

    def _judged(self, found: Diff) -> Findings:
        binding, counts = self.draft.binding, found.counts
        requests: list[int] = []
        failed: ConfigurationError | None = None
        extension = None
        if counts.entered or counts.exited:
            try:
                with self.marketing_cloud(binding.destination) as cloud:
                    extension, attribute = self._patiently(lambda: require_destination(cloud, binding))
                long_keys.limit(found, extension, percent=self.ctx.settings.long_key_percent)
                mode = binding.destination.write_mode
                together = BATCH_ROWS if mode == WriteMode.ASYNC else 0
                batches = planned(found, attribute, mode)
                requests = jobs([(batch.direction, batch.n) for batch in batches], together)
            except ConfigurationError as error:
                failed = error
        past = guard_past(self.ctx.db, self.draft, extension)
        odd_percent = self.ctx.settings.odd_key_percent
        held = file_guard.objection(binding, counts, odd_percent=odd_percent, run="RUN")
        if held is None and (counts.entered or counts.exited):
            held = change_guard.objection(binding, counts, run="RUN", past=past)
        verdict = webhook_trust.weigh(self, self.load(), counts.members + counts.blank)
        held = webhook_trust.objection(binding, verdict, counts.exited, "RUN") or held
        return Findings(
            counts,
            {direction: found.sample(direction, SAMPLES) for direction in Direction},
            requests,
            failed,
            held,
            held,
            odd_examples(found),
        )

    def _patiently(self, step: Callable[[], Result]) -> Result:
        """The step's result, tried again as a run would be."""
        attempt = 0
        while True:
            try:
                return step()
            except RateLimited as error:
                self._sleep(error.retry_after)
            except TransientError:
                attempt += 1
                if attempt >= self.ctx.settings.max_attempts:
                    raise
                self._sleep(backoff(self.ctx, attempt))

    def _sleep(self, seconds: float) -> None:
        """Wait, as long as there is patience."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TransientError("SNAPSHOT_PENDING", binding=self.draft.binding.name)
        time.sleep(max(0.0, min(seconds, left)))


def waits_until(binding: CohortBinding, now: datetime) -> list[TransientError]:
    """What would keep a run from pushing at once, each until a time."""
    found = []
    silence, quiet = blackout.until(binding, now), binding.quiet_until
    if silence is not None:
        found.append(TransientError("BLACKOUT", binding=binding.name, until=f"{silence:%Y-%m-%d %H:%M} UTC"))
    if quiet is not None and quiet > now:
        found.append(TransientError("SUBMISSION_UNCERTAIN", until=f"{quiet:%H:%M:%S} UTC"))
    return found
