"""Stage 2: the file against what Marketing Cloud has acknowledged; guards; the batches, which count by one commit.

Nothing is planned unless the whole file is good, every precondition holds, no guard objects, and nothing that
an earlier run left at the vendor could still contradict it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.contact_keys.masking import masked
from models.database import Database
from models.direction import Direction
from models.errors import TerminalError
from models.membership import state
from models.runs import holds, lifecycle, unresolved_batches
from models.tables import CohortBinding, Snapshot, SyncRun
from models.types import OF_THE_COHORT, Feed, SnapshotKind, Stage
from worker.claim import ClaimedRun
from worker.inspection.check import require_destination
from worker.membership.diff import Diff, StateReader, compare
from worker.membership.key_sources import KeySource
from worker.stages import (
    full_run,
    job_tracking,
    list_base,
    long_keys,
    plan,
    snapshot_store,
    webhook_snapshot,
)
from worker.stages.guards import change_guard, file_guard, webhook_trust
from worker.vendors.marketing_cloud.client import DataExtension

SAMPLES = 5
_OF_THE_FILE = ("snapshot_rows", "members", "blank", "duplicate", "odd", "spanned")


def diff(claimed: ClaimedRun) -> Stage | None:
    """Plan the run's batches, or find that there is nothing to do."""
    run = claimed.load()
    _sweep(claimed, run)
    if not job_tracking.earlier_runs(claimed, run):
        return None
    if run.binding.full_next and not run.full:
        with claimed.transaction() as (_, mine):
            mine.full = True
        run = claimed.load()
    if run.binding.feed == Feed.WEBHOOK and snapshot_of(run).kind == SnapshotKind.DOWNLOAD:
        list_base.take(claimed, run, reader(claimed.ctx.db, run.binding))
        run = claimed.load()
    cohort = snapshot_store.fetch(claimed, snapshot_of(run))
    if (
        run.binding.confirmed_digest is not None
        and not run.full
        and cohort.digest() == run.binding.confirmed_digest
    ):
        if _in_doubt(claimed, run, cohort.digest()):
            return Stage.SNAPSHOT
        if _unchanged(claimed, cohort.digest()):
            return Stage.FINISH
    with claimed.workdir(f"run-{run.id}") as workdir:
        return _decided(claimed, run, cohort, workdir)


def _sweep(claimed: ClaimedRun, run: SyncRun) -> None:
    """Remove what an attempt before this one has left half done."""
    plan.sweep(claimed)
    if run.binding.feed == Feed.WEBHOOK:
        webhook_snapshot.sweep(claimed, run)


def snapshot_of(run: SyncRun) -> Snapshot:
    """The run's snapshot, which it has by now."""
    if run.snapshot is None:
        raise TerminalError("SNAPSHOT_REQUEST_LOST")
    return run.snapshot


def _in_doubt(claimed: ClaimedRun, run: SyncRun, digest: str) -> bool:
    """Whether a list that is as it was is doubted now, and the run has gone back for a download."""
    with claimed.ctx.db.read() as session:
        last = lifecycle.last_with_digest(session, run, digest)
    if last is None:
        return False
    return webhook_trust.heals(claimed, run, webhook_trust.weigh(claimed, run, last.members + last.blank))


def _decided(claimed: ClaimedRun, run: SyncRun, cohort: KeySource, workdir: Path) -> Stage:
    known = reader(claimed.ctx.db, run.binding)
    seen = full_run.read(claimed, run, known, workdir) if run.full else None
    found = compare(
        cohort, seen.state if seen else known, workdir=workdir, seed=claimed.ctx.rng.getrandbits(63)
    )
    _store_counts(claimed, found, seen.audit.expected if seen else found.counts.state_members)
    unknown = seen.audit.extra if seen else 0
    verdict = webhook_trust.weigh(claimed, run, found.counts.members + found.counts.blank)
    if webhook_trust.heals(claimed, run, verdict):
        return Stage.SNAPSHOT
    if not (found.counts.entered or found.counts.exited or unknown):
        return _advance(claimed, Stage.FINISH)
    with claimed.marketing_cloud(run.binding.destination) as cloud:
        extension, field = require_destination(cloud, run.binding)
    longest = long_keys.limit(found, extension, percent=claimed.ctx.settings.long_key_percent)
    if not run.approved:
        past = guard_past(claimed.ctx.db, run, extension)
        held = (
            webhook_trust.objection(run.binding, verdict, found.counts.exited + unknown, run.id)
            or file_guard.objection(
                run.binding, found.counts, odd_percent=claimed.ctx.settings.odd_key_percent, run=run.id
            )
            or change_guard.objection(
                run.binding,
                found.counts,
                run=run.id,
                full=run.full,
                past=past,
                clearing=unknown
                if run.snapshot is not None and run.snapshot.kind == SnapshotKind.CLEAR
                else None,
            )
        )
        if held is not None:
            _store_facts(claimed, found)
            raise held
    wanted = plan.planned(found, field, run.binding.destination.write_mode)
    draft = plan.drafted(claimed, wanted, seen.unknown() if seen else (), longest=longest, workdir=workdir)
    plan.store(claimed, draft, extension)
    return Stage.PUSH


def reader(db: Database, binding: CohortBinding) -> StateReader:
    """The binding's state, read from the database as often as it is asked for."""

    def chunks() -> Iterator[bytes]:
        with db.read() as session:
            yield from state.iter_chunks(session, binding.id)

    def deltas() -> Iterator[tuple[Direction, bytes]]:
        with db.read() as session:
            yield from state.iter_deltas(session, binding.id)

    def uncertain() -> Iterator[bytes]:
        with db.read() as session:
            yield from unresolved_batches.iter_lost(session, binding.id)

    return StateReader(chunks=chunks, deltas=deltas, uncertain=uncertain, members=binding.member_count)


def guard_past(db: Database, run: SyncRun, extension: DataExtension | None) -> change_guard.Past:
    """What the guards compare with."""
    binding, mine = run.binding, run.snapshot
    with db.read() as session:
        return change_guard.Past(
            sizes=holds.sizes(session, binding.id, last=change_guard.HISTORY),
            reached=holds.reached(session, binding.id),
            acknowledged_by=holds.acknowledged_by(session, binding.id),
            there_now=extension.id if extension else None,
            state_at=holds.pushed_snapshot_at(session, binding.id),
            snapshot_at=mine.requested_at if mine and mine.kind in OF_THE_COHORT else None,
        )


def _store_facts(claimed: ClaimedRun, found: Diff) -> None:
    """What the person who decides is shown; keys are masked."""
    samples = {str(one): [masked(key) for key in found.sample(one, SAMPLES)] for one in Direction}
    with claimed.transaction() as (_, run):
        run.held_facts = {
            "state_members": found.counts.state_members,
            "unchanged": found.counts.unchanged,
            "samples": samples,
        }


def _unchanged(claimed: ClaimedRun, digest: str) -> bool:
    """End the stage over the very file that was acknowledged to the last row, unless something was lost since."""
    with claimed.transaction() as (session, mine):
        if unresolved_batches.any_lost(session, mine.binding_id):
            return False
        last = lifecycle.last_with_digest(session, mine, digest)
        if last is None:
            return False
        for name in (*_OF_THE_FILE, "odd_examples", "spared"):
            setattr(mine, name, getattr(last, name))
        mine.digest = digest
        lifecycle.advance(mine, Stage.FINISH, now=claimed.now)
    return True


def _store_counts(claimed: ClaimedRun, found: Diff, members: int) -> None:
    with claimed.transaction() as (_, run):
        for name in (*_OF_THE_FILE, "entered", "exited", "spared"):
            setattr(run, name, getattr(found.counts, name))
        run.odd_examples = odd_examples(found) or None
        run.digest = found.digest
        state.counted(run.binding, members)
        if run.snapshot is not None:
            run.snapshot.rows, run.snapshot.digest = found.counts.snapshot_rows, found.digest


def odd_examples(found: Diff) -> str:
    """The first odd keys, masked, and what is odd about each."""
    return ", ".join(f"{masked(key)} ({what})" for what, key in found.odd_samples)


def _advance(claimed: ClaimedRun, stage: Stage) -> Stage:
    with claimed.transaction() as (_, run):
        lifecycle.note_error(run, None)
        lifecycle.advance(run, stage, now=claimed.now)
    return stage
