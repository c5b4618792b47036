"""Following a submitted job to its end, and what its end means for the batch.

Used by the push of the run that sent it, and by the next run of the binding where that one ended early: a
submitted batch is followed to its end before anything that contradicts it is sent.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from models import batches, runs
from models.batches import RejectedRow
from models.errors import SyncError, TerminalError, TransientError
from models.tables import PushBatch, SyncRun
from models.types import BatchState
from worker.codec import decode_keys, encode_keys
from worker.keys import comparison_key
from worker.marketing_cloud import JobState, MarketingCloud, RowResult
from worker.run import Hold, backoff

log = structlog.get_logger()

# A batch that was sent so often without success needs a person.
BATCH_ATTEMPTS = 6
# Results may lag behind the status under load; after so many looks missing rows are sent again.
RESULT_LOOKS = 3
# Kept short of a whole answer of the vendor's, and free of the row's key.
MESSAGE_MAX = 300


def poll(hold: Hold, cloud: MarketingCloud, batch: PushBatch, *, pause: float) -> bool:
    """Look at one submitted batch; whether it reached its end."""
    if batch.request_id is None or batch.sent_at is None:
        return False
    job = cloud.job(batch.request_id)
    if job is JobState.DONE:
        _commit(hold, batch, None)
        return True
    if job is JobState.DONE_WITH_ERRORS:
        results = cloud.results(batch.request_id)
        if len(results) < batch.n and batch.polls < RESULT_LOOKS:
            _look_again(hold, batch, pause)
            return False
        _commit(hold, batch, results)
        return True
    if job is JobState.FAILED:
        _failed(hold, batch)
        return True
    deadline = hold.ctx.settings.job_deadline_seconds
    if (hold.now - batch.sent_at).total_seconds() > deadline:
        _overdue(hold, batch)
        return True
    _look_again(hold, batch, pause)
    return False


def earlier_runs(hold: Hold, run: SyncRun) -> bool:
    """Settle what earlier runs left at the vendor; False where the run now waits for it."""
    with hold.ctx.db.read() as session:
        left = batches.left_submitted(session, run)
    if left:
        with hold.marketing_cloud(run.binding.destination) as cloud:
            ended = [poll(hold, cloud, batch, pause=2.0) for batch in left]
        if not all(ended):
            with hold.transaction() as (_, mine):
                runs.wait(mine, hold.later(2.0))
            return False
    with hold.transaction() as (_, mine):
        quiet = mine.binding.quiet_until
        if quiet is not None and quiet > hold.now:
            runs.note_error(mine, TransientError("SUBMISSION_UNCERTAIN", until=f"{quiet:%H:%M:%S} UTC"))
            runs.wait(mine, quiet)
            return False
    return True


def _commit(hold: Hold, batch: PushBatch, results: list[RowResult] | None) -> None:
    """Acknowledge what was taken, plan deadlocked and unreported rows anew, record the refused."""
    with hold.transaction() as (session, run):
        if results is None:
            batches.acknowledge(session, run, batch.id, now=hold.now)
            return
        keys = list(decode_keys(batches.keys_of(session, batch.id)))
        told = list(zip(keys, results, strict=False))
        untold = keys[len(results) :]
        worn_out = batch.attempts >= BATCH_ATTEMPTS
        mine = batch.run_id == run.id
        taken = [key for key, row in told if row.ok]
        again = [key for key, row in told if row.deadlocked and not worn_out] + ([] if worn_out else untold)
        refused = [
            RejectedRow(key, comparison_key(key), row.code, _without(row.message, key))
            for key, row in told
            if not row.ok and (worn_out or not row.deadlocked)
        ]
        batches.acknowledge(
            session,
            run,
            batch.id,
            accepted=(len(taken), encode_keys(taken)),
            again=(len(again), encode_keys(again)) if again and mine else None,
            rejected=refused if mine else (),
            now=hold.now,
        )
        if untold and (worn_out or not mine):
            batches.keep_lost(session, batch.id, len(untold), encode_keys(untold), quiet_until=hold.now)
    log.info("batch_had_errors", batch=batch.seq, taken=len(taken), again=len(again), rejected=len(refused))


def _look_again(hold: Hold, batch: PushBatch, pause: float) -> None:
    with hold.transaction() as (session, _):
        batches.polled(session, batch.id, poll_at=hold.later(pause))


def _failed(hold: Hold, batch: PushBatch) -> None:
    """The job as a whole ended in an error: nothing was taken."""
    with hold.transaction() as (session, run):
        if batch.run_id != run.id:
            batches.lose(session, batch.id, quiet_until=hold.now)
            return
        if batch.attempts >= BATCH_ATTEMPTS:
            raise TerminalError("MC_JOB_FAILED", f"It was sent {batch.attempts} times.")
        batches.send_again(session, batch.id, not_before=hold.later(backoff(hold.ctx, batch.attempts)))
        runs.note_error(run, TransientError("MC_JOB_FAILED"))


def _overdue(hold: Hold, batch: PushBatch) -> None:
    """Nobody will wait longer for it; it may still be executed."""
    minutes = round(hold.ctx.settings.job_deadline_seconds / 60)
    quiet = _quiet(hold)
    with hold.transaction() as (session, run):
        if batch.run_id != run.id:
            batches.lose(session, batch.id, quiet_until=quiet)
            return
        if batch.attempts >= BATCH_ATTEMPTS:
            raise TerminalError("MC_JOB_DEADLINE", minutes=minutes)
        batches.send_again(session, batch.id, quiet_until=quiet)
        runs.note_error(run, TransientError("MC_JOB_DEADLINE", minutes=minutes))


def revive(hold: Hold) -> None:
    """Batches of this run that a dead worker was sending: nobody knows whether the vendor has them."""
    with hold.transaction() as (session, run):
        for batch in batches.in_flight(session, run.id):
            if batch.state == BatchState.SENDING:
                batches.send_again(session, batch.id, quiet_until=_quiet(hold))


def unsent(hold: Hold, batch_id: int, error: SyncError, *, uncertain: bool) -> None:
    """A PUT that failed: back to planned; uncertain if the vendor may have it all the same."""
    with hold.transaction() as (session, _):
        batches.send_again(session, batch_id, quiet_until=_quiet(hold) if uncertain else None)
    log.info("batch_not_submitted", code=error.code, uncertain=uncertain)


def _quiet(hold: Hold) -> datetime:
    return hold.later(hold.ctx.settings.uncertain_seconds)


def _without(message: str, key: str) -> str:
    """The vendor's reason without the key that it may quote."""
    return message.replace(key, "…")[:MESSAGE_MAX] if key else message[:MESSAGE_MAX]
