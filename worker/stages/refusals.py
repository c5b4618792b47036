"""A batch that Marketing Cloud refuses as a whole, maybe for what one row holds: found by halving, down to the row.

The second refusal of one batch counts, the first one may pass. Halves of it are halved at their first. A lone row
that stays refused is a rejection; everybody else's rows are delivered. It is bounded: where nothing is taken, the
refusal is not about a row, and the run ends with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import requests
import structlog

from models.contact_keys.codec import decode_keys, encode_keys
from models.errors import SyncError
from models.runs import batches, lifecycle
from models.runs.rejections import RejectedRow
from models.tables import PushBatch
from worker.claim import ClaimedRun, backoff
from worker.inspection.check import require_destination
from worker.vendors.marketing_cloud.client import MarketingCloud

log = structlog.get_logger()

# So often one batch is sent before it is halved.
TRIES = 2
# And a lone row, where the answer is a server's error.
ROW_TRIES = 5
# Halvings before anything was taken, and how many more each accepted batch is worth. One bad row of 25,000 costs 15
# halvings and leaves 14 batches accepted.
HALVINGS_MIN, HALVINGS_PER_ACCEPTED = 20, 2
# Of one run: about sixty bad rows in full batches.
HALVINGS_MAX = 1_000


def refused(
    claimed: ClaimedRun,
    cloud: MarketingCloud,
    batch: PushBatch,
    rows: Sequence[tuple[str, str]],
    error: SyncError,
    *,
    certain: bool = True,
) -> None:
    """Send the batch again, halve it, or reject its only row; raises `error` where halving finds nothing.

    `rows` are the vendor's (code, message). `certain`: nothing of the batch was taken. A lone row is tried again
    behind all others while none of them was taken: if all are refused, the refusal is not about a row.
    """
    alone = batch.n == 1 and _others_refused(claimed, batch)
    if batch.attempts < TRIES or (alone and batch.attempts == TRIES):
        _put_back(claimed, batch, error, certain=certain, last=alone)
        log.info("batch_refused", batch=batch.seq, code=error.code)
        return
    if alone:
        _put_back(claimed, batch, error, certain=certain)
        raise error
    halve(claimed, cloud, batch, rows, error, certain=certain)


def halve(
    claimed: ClaimedRun,
    cloud: MarketingCloud,
    batch: PushBatch,
    rows: Sequence[tuple[str, str]],
    error: SyncError,
    *,
    certain: bool = True,
    first: bool = True,
) -> None:
    """Halve a refused batch, or reject its only row. `first`: the halves go before everything else that is planned."""
    with claimed.ctx.db.read() as session:
        halvings, accepted = batches.halvings(session, batch.run_id)
        keys = decode_keys(batches.keys_of(session, batch.id))
    if not halvings:
        try:
            look_for_the_cause(claimed, cloud, batch)
        except SyncError:
            _put_back(claimed, batch, error, certain=certain)
            raise
    if len(keys) == 1:
        _reject(claimed, batch, keys[0], rows, error, certain=certain)
        return
    if halvings >= min(HALVINGS_MAX, HALVINGS_MIN + HALVINGS_PER_ACCEPTED * accepted):
        _put_back(claimed, batch, error, certain=certain)
        raise error
    half = len(keys) // 2
    with claimed.transaction() as (session, run):
        batches.halve(
            session,
            run,
            batch.id,
            [(len(part), encode_keys(part)) for part in (keys[:half], keys[half:])],
            certain=certain,
            first=first,
        )
    log.info("batch_halved", batch=batch.seq, rows=len(keys), code=error.code)


def failed(claimed: ClaimedRun, cloud: MarketingCloud, batch: PushBatch, error: SyncError) -> None:
    """A write ended in an error that may pass, and is planned again: a 500 that repeats may be about a row.

    Its halves wait behind everything else, and the run waits between two tries, because a vendor in trouble answers
    the same. So a lone row is rejected only after many tries, and when other rows were taken.
    """
    if error.context.get("status") != requests.codes.server_error or batch.attempts < TRIES:
        return
    if batch.n > 1:
        halve(claimed, cloud, batch, (), error, certain=False, first=False)
        return
    with claimed.ctx.db.read() as session:
        _, accepted = batches.halvings(session, batch.run_id)
    if accepted and batch.attempts >= ROW_TRIES:
        _reject(
            claimed, batch, decode_keys(batch.keys)[0], [("HTTP_500", error.message)], error, certain=False
        )


def look_for_the_cause(claimed: ClaimedRun, cloud: MarketingCloud, batch: PushBatch) -> None:
    """Not one row was taken: say so if the data extension or the field is gone or has changed."""
    run = claimed.load()
    if batch.run_id == run.id:
        require_destination(cloud, run.binding)


def _others_refused(claimed: ClaimedRun, batch: PushBatch) -> bool:
    """Whether the run has other batches and none of its batches was taken."""
    with claimed.ctx.db.read() as session:
        _, accepted = batches.halvings(session, batch.run_id)
        return not accepted and batches.has_others(session, batch)


def _put_back(
    claimed: ClaimedRun, batch: PushBatch, error: SyncError, *, certain: bool, last: bool = False
) -> None:
    """Planned again, after a while; `last`: behind everything else of the run."""
    later = claimed.later(backoff(claimed.ctx, batch.attempts))
    with claimed.transaction() as (session, run):
        batches.refused(session, batch.id, not_before=later, certain=certain, last=last)
        lifecycle.note_error(run, error)


def _reject(
    claimed: ClaimedRun,
    batch: PushBatch,
    key: str,
    rows: Sequence[tuple[str, str]],
    error: SyncError,
    *,
    certain: bool,
) -> None:
    code, words = rows[0][0] if rows else error.code, " ".join(message for _, message in rows)
    with claimed.transaction() as (session, run):
        if certain and batches.is_unflagged(session, batch.id):
            batches.acknowledge(session, run, batch.id, now=claimed.now)
            log.info("row_settled", batch=batch.seq, code=error.code)
            return
        doubt = not certain or batches.in_doubt(session, batch)
        batches.acknowledge(
            session,
            run,
            batch.id,
            accepted=(0, encode_keys([])),
            rejected=[RejectedRow.of(key, code, words or error.message)],
            now=claimed.now,
        )
        if doubt:
            batches.keep_lost(session, batch.id, 1, encode_keys([key]))
    log.info("row_refused", batch=batch.seq, code=error.code)
