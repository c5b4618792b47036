"""Stage 4: compaction when it is due, the run's verdict, one canonical log line.

A run is `succeeded` only if every planned row was acknowledged; with rejected rows it is `partial`, and the
snapshot is not taken for confirmed, so the next run compares again and retries them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.data_protection.retention import Retention
from models.database import one_state
from models.direction import Direction
from models.membership import generations, state
from models.membership.generations import Ahead, Counting
from models.runs import lifecycle, rejections, unresolved_batches
from models.tables import SyncRun
from models.types import RunState, Stage
from worker.claim import ClaimedRun
from worker.membership.compaction import compact, compaction_due
from worker.membership.part_file import PartFile
from worker.stages import parts_ahead, snapshot_store

log = structlog.get_logger()


def finish(claimed: ClaimedRun) -> Stage | None:
    """End the run."""
    with claimed.workdir(f"fold-{claimed.claim.run_id}") as workdir:
        base = _folded(claimed, workdir)
        if base is not None:
            _store(claimed, base, workdir)
        _sweep(claimed)
    run = _end(claimed)
    if run.snapshot is not None:
        snapshot_store.forget(claimed, run.snapshot)
    log.info("run_finished", **canonical(run), folded=base is not None)
    return None


def _sweep(claimed: ClaimedRun) -> None:
    """Remove what a new base has replaced, and what a kill left of one."""
    binding_id = claimed.load().binding_id
    with claimed.ctx.db.read() as session:
        if not generations.any_others(session, generations.of_binding(binding_id)):
            return
    state.drop_replaced(claimed, binding_id)


def _end(claimed: ClaimedRun) -> SyncRun:
    with claimed.transaction() as (session, run):
        complete = not run.rejected and run.acknowledged == run.entered + run.exited
        verdict = RunState.SUCCEEDED if complete else RunState.PARTIAL
        unresolved_batches.supersede(session, run)
        rejections.forget_settled(session, run)
        run.binding.confirmed_digest = run.digest if complete else None
        if run.full:
            run.binding.full_next = False
        lifecycle.note_error(run, None)
        lifecycle.finish(session, run, verdict, now=claimed.now)
    return run


@dataclass(frozen=True)
class _Base:
    """A new generation of the binding's members, of the batches `folded` and the base before them."""

    parts: PartFile
    folded: list[int]
    without: Forgotten


def _folded(claimed: ClaimedRun, workdir: Path) -> _Base | None:
    """The new base, if it is time for one. Nothing but this run changes the state until it is stored."""
    with claimed.ctx.db.read() as session:
        one_state(session)
        run = session.get_one(SyncRun, claimed.claim.run_id)
        base, changes, batches = state.sizes(session, run.binding_id)
        # Where members were pushed anew only folding counts each contact once. And a batch that is not kept any longer
        # must not be state any more.
        old = Retention.at(claimed.ctx.settings, claimed.now).batches
        since = state.logged_since(session, run.binding_id)
        aged = old is not None and since is not None and since < old
        again = run.full or run.binding.member_count_rough
        if not (again and changes) and not aged and not compaction_due(base, changes, batches):
            return None
        gone = forgotten.load(session, claimed.ctx.db.keyring)
        parts = compact(
            state.iter_chunks(session, run.binding_id),
            state.iter_deltas(session, run.binding_id),
            workdir=workdir,
        )
        kept = PartFile.of((gone.without(Direction.EXIT, *part) for part in parts), workdir)
        return _Base(kept, state.logged(session, run.binding_id), gone)


def _store(claimed: ClaimedRun, base: _Base, workdir: Path) -> None:
    def count(
        session: Session, run: SyncRun, ahead: Ahead, rest: Iterator[tuple[int, bytes]]
    ) -> Counting | None:
        return state.replace_base(session, run.binding_id, ahead, rest)

    binding_id = claimed.load().binding_id
    counting = parts_ahead.counted(
        claimed,
        generations.of_binding(binding_id),
        base.parts,
        Direction.EXIT,  # who leaves is in the state until a run has unflagged them
        count,
        known=base.without,
        workdir=workdir,
    )
    state.take_from_log(claimed, base.folded, counting.generation)


def canonical(run: SyncRun) -> dict[str, object]:
    """What there is to say of a run, in one line: names and numbers, never a key."""
    started = run.started_at or run.created_at
    return {
        "run": run.id,
        "binding": run.binding.name,
        "trigger": run.trigger,
        "state": run.state,
        "members": run.members,
        "entered": run.entered,
        "exited": run.exited,
        "acknowledged": run.acknowledged,
        "rejected": run.rejected,
        "blank": run.blank,
        "duplicate": run.duplicate,
        "odd": run.odd,
        "spared": run.spared,
        "amplitude_requests": run.amplitude_requests,
        "marketing_cloud_requests": run.marketing_cloud_requests,
        "seconds": round((run.finished_at - started).total_seconds(), 3) if run.finished_at else None,
    }
