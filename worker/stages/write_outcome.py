"""What became of a request that writes rows, as a value, and in one place what that means for its batches.

Only a documented yes is one: an answer without a request id, or that does not name the rows, is `Failed` like none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from models.contact_keys.codec import decode_keys, encode_keys
from models.errors import ConfigurationError, RateLimited, SyncError, TransientError
from models.runs import batches
from models.tables import PushBatch
from worker.claim import ClaimedRun
from worker.inspection.check import require_destination
from worker.stages import job_tracking, refusals
from worker.stages.pace import POLL_MIN_SECONDS
from worker.vendors.http import NotSentError
from worker.vendors.marketing_cloud.client import SYNC_ROWS, MarketingCloud, PayloadTooLargeError
from worker.vendors.marketing_cloud.passing import passes
from worker.vendors.marketing_cloud.transport import BatchRefusedError, RowsRefusedError

# A request that failed like this was not taken. All else (no answer, a server's error, an odd answer) tells nothing.
NOT_TAKEN = (NotSentError, RateLimited, ConfigurationError)
# Without a reason a peer takes a refusal of synchronous rows for a passing one: so often a batch is sent before it is
# halved.
UNEXPLAINED_TRIES = 3
NO_FIELD = "At least one existing field is required"


@dataclass(frozen=True)
class Queued:
    """The rows are a job now."""

    request_id: str


@dataclass(frozen=True)
class Saved:
    """The rows are there."""


@dataclass(frozen=True)
class TooLarge:
    """Nothing was taken: the request was too large."""

    error: PayloadTooLargeError


@dataclass(frozen=True)
class BatchRefused:
    """Nothing was taken, maybe for the sake of one row."""

    error: BatchRefusedError


@dataclass(frozen=True)
class RowsRefused:
    """A synchronous call: rows before a bad one are saved, those after it are not, and which one is bad is not said.

    To send a saved row again changes nothing, so the batch is halved until the bad row is alone.
    """

    error: RowsRefusedError


@dataclass(frozen=True)
class Failed:
    """It was not taken, or `uncertain`: nobody knows."""

    error: SyncError
    uncertain: bool


WriteOutcome: TypeAlias = Queued | Saved | TooLarge | BatchRefused | RowsRefused | Failed


def outcome_of(write: Callable[[], str | None]) -> WriteOutcome:
    """Do it; it gives the request id of a job, or none where the rows are saved at once."""
    try:
        request_id = write()
    except PayloadTooLargeError as error:
        return TooLarge(error)
    except BatchRefusedError as error:
        return BatchRefused(error)
    except RowsRefusedError as error:
        return RowsRefused(error)
    except SyncError as error:
        return Failed(error, uncertain=not isinstance(error, NOT_TAKEN))
    return Saved() if request_id is None else Queued(request_id)


def apply(
    claimed: ClaimedRun,
    cloud: MarketingCloud,
    job: Sequence[PushBatch],
    outcome: WriteOutcome,
    *,
    first_look: float,
) -> None:
    """Store what it means for the batches of the request; raises what must end or pause the claim.

    `first_look`: how many seconds after it was sent a job is looked at.
    """
    match outcome:
        case Queued(request_id):
            _queued(claimed, job, request_id, first_look)
        case Saved():
            _saved(claimed, job)
        case TooLarge(error):
            _too_large(claimed, cloud, job, error)
        case BatchRefused(error):
            for batch in job:
                refusals.refused(claimed, cloud, batch, error.rows, error)
        case RowsRefused(error):
            for batch in job:
                _rows_refused(claimed, cloud, batch, error)
        case Failed(error, uncertain):
            job_tracking.unsent(claimed, job, error, uncertain=uncertain)
            for batch in job:
                refusals.failed(claimed, cloud, batch, error)
            raise error


def replace(claimed: ClaimedRun, batch: PushBatch, parts: Sequence[Sequence[str]]) -> None:
    """Smaller batches in the place of one of which nothing was taken."""
    with claimed.transaction() as (session, run):
        made = [(len(part), encode_keys(part)) for part in parts]
        batches.split(session, run, batch.id, made, sent=batch.attempts > 1)


def _queued(claimed: ClaimedRun, job: Sequence[PushBatch], request_id: str, first_look: float) -> None:
    soonest = (job[0].sent_at or claimed.now) + timedelta(seconds=first_look)
    due = max(claimed.later(POLL_MIN_SECONDS), soonest)
    with claimed.transaction() as (session, _):
        for batch in job:
            batches.submitted(session, batch.id, request_id, poll_at=due)


def _saved(claimed: ClaimedRun, job: Sequence[PushBatch]) -> None:
    with claimed.transaction() as (session, run):
        for batch in job:
            batches.acknowledge(session, run, batch.id, now=claimed.now)


def _too_large(
    claimed: ClaimedRun, cloud: MarketingCloud, job: Sequence[PushBatch], error: PayloadTooLargeError
) -> None:
    """Each batch alone; one alone in halves, a small one within the bound of `refusals`."""
    if len(job) > 1:
        with claimed.transaction() as (session, _):
            for one in job:
                batches.refused(session, one.id, not_before=claimed.now, certain=True)
        return
    (batch,) = job
    if batch.n <= SYNC_ROWS:
        refusals.halve(claimed, cloud, batch, [("HTTP_413", error.message)], error)
        return
    keys = decode_keys(batch.keys)
    half = len(keys) // 2
    replace(claimed, batch, (keys[:half], keys[half:]))


def _rows_refused(
    claimed: ClaimedRun, cloud: MarketingCloud, batch: PushBatch, error: RowsRefusedError
) -> None:
    """Some row is bad, or none: what is said decides."""
    said = " ".join(message for _, message in error.rows)
    if (not error.rows or passes(said)) and batch.attempts < UNEXPLAINED_TRIES:
        with claimed.transaction() as (session, _):
            batches.send_again(session, batch.id)
        raise TransientError("MC_UNAVAILABLE", "It refused synchronous rows without a reason.")
    if NO_FIELD in said:
        job_tracking.unsent(claimed, [batch], error, uncertain=False)
        require_destination(cloud, claimed.load().binding)
    final = ConfigurationError(error.code, error.detail, **error.context)
    refusals.halve(claimed, cloud, batch, error.rows, final, certain=batch.n == 1)
