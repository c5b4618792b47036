"""Following a submitted job to its end, and what its end means for the batch.

Used by the push of the run that sent it, and by the next run of the binding where that one ended early: a
submitted batch is followed to its end before anything that contradicts it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.orm import Session

from models.contact_keys.codec import decode_keys, encode_keys
from models.contact_keys.comparison import comparison_key
from models.errors import RateLimited, SyncError, TerminalError, TransientError
from models.runs import batches, lifecycle, unresolved_batches
from models.runs.rejections import RejectedRow
from models.tables import PushBatch, SyncRun
from models.types import BatchState
from worker.claim import ClaimedRun
from worker.stages import refusals
from worker.vendors.marketing_cloud.client import JobState, MarketingCloud, RowResult
from worker.vendors.marketing_cloud.transport import NotThereError

log = structlog.get_logger()

# A batch that was sent so often without success needs a person.
BATCH_ATTEMPTS = 6
# Results may lag behind the status under load; after so many looks missing rows are sent again.
RESULT_LOOKS = 3
# What stands for the vendor's reason where it never gave a row's result.
NO_RESULT = ("NO_RESULT", "Marketing Cloud gave no result for the row; it is sent again by the next run.")
# And where its job ended in an error as a whole, for the sake of this row.
JOB_FAILED = ("JOB_FAILED", "The job with this row alone ended in an error.")


def _nothing(_session: Session, _run: SyncRun) -> None:
    pass


def poll(
    claimed: ClaimedRun,
    cloud: MarketingCloud,
    job: Sequence[PushBatch],
    *,
    pause: float,
    then: Callable[[Session, SyncRun], None] = _nothing,
) -> bool:
    """Look at the job that these batches are, in the order of its rows; whether it reached its end.

    `then` is called in the transaction that stores the results of its rows.
    """
    first, n = job[0], sum(batch.n for batch in job)
    if first.request_id is None or first.sent_at is None:
        return False
    overdue = (claimed.now - first.sent_at).total_seconds() > claimed.ctx.settings.job_deadline_seconds
    state = _job(cloud, first.request_id, overdue=overdue)
    if state is JobState.DONE:
        _commit(claimed, job, None, then)
        return True
    if state is JobState.DONE_WITH_ERRORS:
        results = cloud.results(first.request_id)
        if len(results) > n:  # another job's, or not one a row: no position means anything
            results = []
        if len(results) < n and first.polls < RESULT_LOOKS:
            _look_again(claimed, job, pause)
            return False
        if not any(row.ok or row.passing for row in results):
            refusals.look_for_the_cause(claimed, cloud, first)
        _commit(claimed, job, results, then)
        return True
    if state is JobState.FAILED:
        _failed(claimed, cloud, job)
        return True
    if overdue:
        _overdue(claimed, job)
        return True
    _look_again(claimed, job, pause)
    return False


def _job(cloud: MarketingCloud, request_id: str, *, overdue: bool) -> JobState:
    """Where the job stands; one that the vendor does not know (any more) ends by its deadline.

    The deadline counts also while nobody may ask.
    """
    try:
        return cloud.job(request_id)
    except RateLimited:
        if not overdue:
            raise
        return JobState.UNSEEN
    except NotThereError:
        return JobState.UNSEEN


def earlier_runs(claimed: ClaimedRun, run: SyncRun) -> bool:
    """Settle what earlier runs left at the vendor; False where the run now waits for it."""
    with claimed.ctx.db.read() as session:
        left = unresolved_batches.submitted(session, run)
    if left:
        with claimed.marketing_cloud(run.binding.destination) as cloud:
            ended = [poll(claimed, cloud, job, pause=2.0) for job in batches.jobs(left)]
        if not all(ended):
            with claimed.transaction() as (_, mine):
                lifecycle.wait(mine, claimed.later(2.0))
            return False
    elif run.binding.quiet_until is None:
        return True
    with claimed.transaction() as (_, mine):
        quiet = mine.binding.quiet_until
        if quiet is not None and quiet > claimed.now:
            lifecycle.note_error(mine, TransientError("SUBMISSION_UNCERTAIN", until=f"{quiet:%H:%M:%S} UTC"))
            lifecycle.wait(mine, quiet)
            return False
    return True


def _commit(
    claimed: ClaimedRun,
    job: Sequence[PushBatch],
    results: list[RowResult] | None,
    then: Callable[[Session, SyncRun], None],
) -> None:
    """Acknowledge what was taken, plan passing and unreported rows anew, record the refused."""
    with claimed.transaction() as (session, run):
        for batch in job:
            if results is None:
                batches.acknowledge(session, run, batch.id, now=claimed.now)
            else:
                _row_by_row(claimed, session, run, batch, results[: batch.n])
                results = results[batch.n :]
        then(session, run)


def _row_by_row(
    claimed: ClaimedRun, session: Session, run: SyncRun, batch: PushBatch, results: list[RowResult]
) -> None:
    keys = decode_keys(batches.keys_of(session, batch.id))
    told = list(zip(keys, results, strict=False))
    untold = keys[len(results) :]
    worn_out = batch.attempts >= BATCH_ATTEMPTS
    mine = batch.run_id == run.id
    final = worn_out or not mine  # another run's rows are left to the diff that follows
    doubt = batches.in_doubt(session, batch)
    unflagged = batches.is_unflagged(session, batch.id)
    settled = {key for key, row in told if unflagged and not (row.ok or row.passing)}
    taken = [key for key, row in told if row.ok or key in settled]
    again = [] if final else [key for key, row in told if row.passing] + untold
    refused = [
        RejectedRow.of(key, row.code, row.message)
        for key, row in told
        if not row.ok and key not in settled and (final or not row.passing)
    ]
    if final:
        refused += [RejectedRow(key, comparison_key(key), *NO_RESULT) for key in untold]
    batches.acknowledge(
        session,
        run,
        batch.id,
        accepted=(len(taken), encode_keys(taken)),
        again=(len(again), encode_keys(again)) if again else None,
        again_sent_at=batch.sent_at if doubt or untold else None,
        rejected=refused if mine else (),
        now=claimed.now,
    )
    unknown = [row.key for row in refused] if doubt else untold if final else []
    if unknown:
        batches.keep_lost(session, batch.id, len(unknown), encode_keys(unknown))
    log.info(
        "batch_had_errors",
        batch=batch.seq,
        taken=len(taken) - len(settled),
        settled=len(settled),
        again=len(again),
        rejected=len(refused),
    )


def _look_again(claimed: ClaimedRun, job: Sequence[PushBatch], pause: float) -> None:
    with claimed.transaction() as (session, run):
        for batch in job:
            batches.polled(session, batch.id, poll_at=claimed.later(pause))
        run.attempt = 0  # the vendor answers


def _failed(claimed: ClaimedRun, cloud: MarketingCloud, job: Sequence[PushBatch]) -> None:
    """The job as a whole ended in an error: nothing was taken."""
    with claimed.transaction() as (session, run):
        others = [batch for batch in job if batch.run_id != run.id]
        for batch in others:
            batches.lose(session, batch.id, quiet_until=claimed.now)
    for batch in job:
        if batch not in others:
            refusals.refused(claimed, cloud, batch, [JOB_FAILED], TerminalError("MC_JOB_FAILED"))


def _overdue(claimed: ClaimedRun, job: Sequence[PushBatch]) -> None:
    """Nobody will wait longer for it; it may still be executed."""
    minutes = round(claimed.ctx.settings.job_deadline_seconds / 60)
    quiet = claimed.quiet_until
    with claimed.transaction() as (session, run):
        for batch in job:
            if batch.run_id != run.id:
                batches.lose(session, batch.id, quiet_until=quiet)
                continue
            if batch.attempts >= BATCH_ATTEMPTS:
                raise TerminalError("MC_JOB_DEADLINE", minutes=minutes)
            batches.send_again(session, batch.id, quiet_until=quiet)
            lifecycle.note_error(run, TransientError("MC_JOB_DEADLINE", minutes=minutes))


def revive(claimed: ClaimedRun) -> None:
    """Batches of this run that a dead worker was sending: nobody knows whether the vendor has them."""
    with claimed.ctx.db.read() as session:
        if all(
            batch.state != BatchState.SENDING for batch in batches.in_flight(session, claimed.claim.run_id)
        ):
            return
    with claimed.transaction() as (session, run):
        batches.send_again_unheard(session, run.id, quiet_until=claimed.quiet_until)


def unsent(claimed: ClaimedRun, job: Sequence[PushBatch], error: SyncError, *, uncertain: bool) -> None:
    """A PUT that failed: back to planned; uncertain if the vendor may have it all the same."""
    with claimed.transaction() as (session, _):
        for batch in job:
            if uncertain:
                batches.send_again(session, batch.id, quiet_until=claimed.quiet_until)
            else:
                batches.not_sent(session, batch.id)
    log.info("batch_not_submitted", code=error.code, uncertain=uncertain)
