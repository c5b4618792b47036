"""Stage 4: compaction when it is due, the run's verdict, one canonical log line.

A run is `succeeded` only if every planned row was acknowledged; with rejected rows it is `partial`, and the
snapshot is not taken for confirmed, so the next run compares again and retries them.
"""

from __future__ import annotations

import structlog
from sqlalchemy.orm import Session

from models.data_protection import forgotten
from models.data_protection.retention import Retention
from models.membership import state
from models.runs import lifecycle, rejections, unresolved_batches
from models.tables import SyncRun
from models.types import RunState, Stage
from worker.claim import ClaimedRun
from worker.membership.compaction import compact, compaction_due
from worker.stages import snapshot_store

log = structlog.get_logger()


def finish(claimed: ClaimedRun) -> Stage | None:
    """End the run."""
    with claimed.transaction() as (session, run):
        folded = _compact(claimed, session, run)
        complete = not run.rejected and run.acknowledged == run.entered + run.exited
        verdict = RunState.SUCCEEDED if complete else RunState.PARTIAL
        unresolved_batches.supersede(session, run)
        rejections.forget_settled(session, run)
        run.binding.confirmed_digest = run.digest if complete else None
        if run.full:
            run.binding.full_next = False
        lifecycle.note_error(run, None)
        lifecycle.finish(session, run, verdict, now=claimed.now)
    if run.snapshot is not None:
        snapshot_store.forget(claimed, run.snapshot)
    log.info("run_finished", **canonical(run), folded=folded)
    return None


def _compact(claimed: ClaimedRun, session: Session, run: SyncRun) -> bool:
    base, changes, logged = state.sizes(session, run.binding_id)
    # Where members were pushed anew only folding counts each contact once. And a batch that is not kept any longer must
    # not be state any more.
    old = Retention.at(claimed.ctx.settings, claimed.now).batches
    since = state.logged_since(session, run.binding_id)
    aged = old is not None and since is not None and since < old
    if (
        not ((run.full or run.binding.member_count_rough) and changes)
        and not aged
        and not compaction_due(base, changes, logged)
    ):
        return False
    forgotten.enforced(session, claimed.ctx.db.keyring)  # nobody is removed from what is read here
    with claimed.workdir(f"fold-{run.id}") as workdir:
        parts = compact(
            state.iter_chunks(session, run.binding_id),
            state.iter_deltas(session, run.binding_id),
            workdir=workdir,
        )
        state.replace_base(session, run.binding_id, parts)
    return True


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
