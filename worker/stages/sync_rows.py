"""Synchronous rows: the fallback of a destination where asynchronous ones are not to be had.

A call takes 50 rows at most, is not atomic and does not say which row was bad: those before it are saved, those
after it are dropped. So a batch that is refused is halved in the journal until a single row stands there. Upserts
are of absolute values, so sending a saved row again changes nothing; a kill at any instruction leaves batches that
were sent and not acknowledged, as with asynchronous ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import structlog

from models.contact_keys.codec import decode_keys, encode_keys
from models.errors import ConfigurationError, RateLimited, SyncError, TransientError
from models.runs import batches
from models.tables import PushBatch
from worker.claim import ClaimedRun
from worker.inspection.check import require_destination
from worker.stages import job_tracking, refusals
from worker.vendors.http import NotSentError
from worker.vendors.marketing_cloud.client import CONTACT_KEY, SYNC_ROWS, MarketingCloud, PayloadTooLargeError
from worker.vendors.marketing_cloud.passing import passes
from worker.vendors.marketing_cloud.transport import BatchRefusedError, RowsRefusedError

log = structlog.get_logger()

# Without a reason a peer takes a refusal for a passing one: so often a batch is sent before it is halved.
UNEXPLAINED_TRIES = 3
# A call that failed like this has saved nothing.
NOT_SAVED = (NotSentError, RateLimited, ConfigurationError)
NO_FIELD = "At least one existing field is required"


def send(
    hold: ClaimedRun,
    cloud: MarketingCloud,
    batch: PushBatch,
    data_extension_id: str,
    field: str,
    value: bool | str | int,
) -> None:
    """Bring a batch that was taken for sending to its end, or put smaller ones in its place."""
    keys = decode_keys(batch.keys)
    if len(keys) > SYNC_ROWS:  # planned while the destination took jobs
        parts = [keys[at : at + SYNC_ROWS] for at in range(0, len(keys), SYNC_ROWS)]
        _replace(hold, batch, parts, sent=batch.attempts > 1)
        return
    hold.require_lease()
    try:
        cloud.save(data_extension_id, rows(keys, field, value))
    except RowsRefusedError as error:
        _refused(hold, cloud, batch, error)
    except PayloadTooLargeError as error:
        refusals.halve(hold, cloud, batch, [("HTTP_413", error.message)], error)
    except BatchRefusedError as error:
        refusals.refused(hold, cloud, batch, error.rows, error)
    except SyncError as error:
        job_tracking.unsent(hold, [batch], error, uncertain=not isinstance(error, NOT_SAVED))
        refusals.failed(hold, cloud, batch, error)
        raise
    else:
        with hold.transaction() as (session, run):
            batches.acknowledge(session, run, batch.id, now=hold.now)


def rows(keys: Sequence[str], field: str, value: bool | str | int) -> bytes:
    """The body: `[{"keys":{"Contact Key":"k1"},"values":{"F":"true"}},…]`; Booleans as the reference spells them."""
    text = str(value).lower() if isinstance(value, bool) else value
    return orjson.dumps([{"keys": {CONTACT_KEY: key}, "values": {field: text}} for key in keys])


def _refused(hold: ClaimedRun, cloud: MarketingCloud, batch: PushBatch, error: RowsRefusedError) -> None:
    """Some row is bad, or none: what is said decides."""
    said = " ".join(message for _, message in error.rows)
    if (not error.rows or passes(said)) and batch.attempts < UNEXPLAINED_TRIES:
        with hold.transaction() as (session, _):
            batches.send_again(session, batch.id)
        raise TransientError("MC_UNAVAILABLE", "It refused synchronous rows without a reason.")
    if NO_FIELD in said:
        job_tracking.unsent(hold, [batch], error, uncertain=False)
        require_destination(cloud, hold.load().binding)
    final = ConfigurationError(error.code, error.detail, **error.context)
    refusals.halve(hold, cloud, batch, error.rows, final, certain=batch.n == 1)


def _replace(hold: ClaimedRun, batch: PushBatch, parts: Sequence[Sequence[str]], *, sent: bool) -> None:
    with hold.transaction() as (session, run):
        batches.split(session, run, batch.id, [(len(part), encode_keys(part)) for part in parts], sent=sent)
