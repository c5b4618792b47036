"""What counts as a yes of Marketing Cloud. Pure.

The rule, for every call: only the documented status together with a body in the documented form is a yes. Whatever
else comes back, a redirect, an empty body, a page, somebody else's rows, is an answer that was lost: what was asked
for may have happened or not. No error is not a yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import requests

from models.contact_keys.comparison import comparison_key
from worker.vendors.http import json_of
from worker.vendors.marketing_cloud.data_extension import CONTACT_KEY

# A request id is a GUID; the journal holds a hundred characters.
REQUEST_ID_MAX = 100


class JobState(Enum):
    """Where an asynchronous job stands."""

    UNSEEN = "unseen"  # 200 without a status: fine, but not indexed yet
    RUNNING = "running"
    DONE = "done"
    DONE_WITH_ERRORS = "done with errors"  # or not clearly without: /results says
    FAILED = "failed"


def queued(response: requests.Response) -> str | None:
    """The request id of an accepted job: 202 and `{"requestId", "resultMessages": []}`, or none.

    Source: updateDataExtensionIDAsync. A peer's tests show 200 for it; nothing is acknowledged by either.
    """
    body = json_of(response)
    if response.status_code not in {200, 202} or not isinstance(body, dict) or _has_error(body):
        return None
    found = body.get("requestId")
    good = (
        isinstance(found, str)
        and 0 < len(found) <= REQUEST_ID_MAX
        and found.isascii()
        and found.isprintable()
    )
    return found if good else None


def job_state(body: dict[str, Any], request_id: str) -> JobState:
    """What /status says of the job. Complete is a yes only with an explicit `"hasErrors": false`.

    Source: getStatusDataExtensionAsync. A status of another job says nothing of this one.
    """
    status = body.get("status")
    if (
        not isinstance(status, dict)
        or str(status.get("requestId") or request_id).lower() != request_id.lower()
    ):
        return JobState.UNSEEN
    match status.get("requestStatus"):
        case "Complete" | "Completed":
            clear = status.get("hasErrors") is False and status.get("resultStatus") in {None, "OK"}
            return JobState.DONE if clear and not _has_error(body) else JobState.DONE_WITH_ERRORS
        case "Error":
            return JobState.FAILED
        case _:
            return JobState.RUNNING


def row_taken(item: dict[str, Any]) -> bool:
    """Whether one item of /results says that its row was taken."""
    return item.get("status") == "OK" and not item.get("errors") and not item.get("errorCode")


def saved(response: requests.Response, keys: Sequence[str]) -> bool:
    """Whether a synchronous call saved exactly these rows: 200, and an echo that names each of them.

    Source: postDataExtensionRowsetByKey, `[{"keys": {...}, "values": {...}}]`.
    """
    body = json_of(response)
    if response.status_code != requests.codes.ok or not isinstance(body, list) or len(body) != len(keys):
        return False
    named = [_named(item) for item in body]
    return None not in named and sorted(map(str, named)) == sorted(map(comparison_key, keys))


def _named(item: Any) -> str | None:
    """The comparison key of a row in the echo; none where it says anything of an error."""
    if not isinstance(item, dict) or any(_of_error(name) and value for name, value in item.items()):
        return None
    keys = item.get("keys")
    if not isinstance(keys, dict):
        return None
    found = [value for name, value in keys.items() if name.lower() == CONTACT_KEY.lower()]
    return comparison_key(found[0]) if len(found) == 1 and isinstance(found[0], str) else None


def _of_error(name: str) -> bool:
    return "error" in name.lower() or name.lower() == "message"


def _has_error(body: dict[str, Any]) -> bool:
    """Whether a body speaks of an error, in either of the two envelopes."""
    messages = body.get("resultMessages")
    found = messages if isinstance(messages, list) else []
    return "errorcode" in body or any(isinstance(m, dict) and m.get("resultClass") == "Error" for m in found)
