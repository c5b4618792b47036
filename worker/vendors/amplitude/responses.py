"""What Amplitude's answers mean: cohorts, the usage, and refusals whose words are not documented. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from models.errors import ConfigurationError, ContractError, SyncError, TransientError

SAID_MAX = 200
_NOT_THERE = frozenset({400, 404, 409, 410})
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class SyncInfo:
    """How the syncs of a cohort to one of Amplitude's destinations ended, the last of each kind."""

    target: str
    last_successful: datetime | None
    last_failure: datetime | None


@dataclass(frozen=True)
class Cohort:
    """One cohort of the list. `group` is "User" unless the cohort holds groups.

    `size` and `last_computed` are of the last time that something computed it: an unchanged `last_computed` does
    not prove an unchanged membership. `finished` is false for one that was never computed.
    """

    id: str
    name: str
    size: int | None
    archived: bool
    hidden: bool
    published: bool
    finished: bool
    group: str
    last_computed: datetime | None
    syncs: tuple[SyncInfo, ...] = ()

    @property
    def webhook(self) -> SyncInfo | None:
        """The syncs to a webhook: those whose target says so, or the only ones. The one that failed last counts.

        What Amplitude calls the target is documented for one destination alone.
        """
        named = [one for one in self.syncs if "webhook" in one.target.lower()]
        mine = named or (self.syncs if len(self.syncs) == 1 else ())
        return max(mine, key=lambda one: one.last_failure or _NEVER, default=None)


@dataclass(frozen=True)
class Usage:
    """Downloads of the month by Amplitude's own count; `resets_at` as it came, or empty."""

    used: int
    limit: int
    resets_at: str = ""


def cohort(item: dict[str, Any]) -> Cohort:
    """One element of the list, read leniently: most fields may be null or absent."""
    definition = item.get("definition")
    group = definition.get("countGroup") if isinstance(definition, dict) else None
    if isinstance(group, dict):  # a bare string in recordings of 2022
        group = group.get("name")
    size = item.get("size")
    return Cohort(
        id=str(item["id"]),
        name=str(item.get("name") or ""),
        size=size if isinstance(size, int) else None,
        archived=item.get("archived") is True,
        hidden=item.get("hidden") is True,
        published=item.get("published") is not False,
        finished=item.get("finished") is True,
        group=str(group or "User"),
        last_computed=_instant(item.get("lastComputed")),
        syncs=_syncs(item.get("syncMetadata")),
    )


def _syncs(listed: object) -> tuple[SyncInfo, ...]:
    found = listed if isinstance(listed, list) else []
    return tuple(
        SyncInfo(
            str(item.get("target") or ""), _date(item.get("last_successful")), _date(item.get("last_failure"))
        )
        for item in found
        if isinstance(item, dict)
    )


def _date(value: object) -> datetime | None:
    """ISO 8601 with an offset; without one it names no instant."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def usage(body: dict[str, Any]) -> Usage | None:
    """{"rest_download": {limit, usage, resets_at}} or {limit, count}: two third parties disagree."""
    inner = body.get("rest_download", body)
    if not isinstance(inner, dict):
        return None
    used, limit = inner.get("usage", inner.get("count")), inner.get("limit")
    if not isinstance(used, int) or not isinstance(limit, int):
        return None
    return Usage(used, limit, str(inner.get("resets_at") or ""))


def of_quota(text: str) -> bool:
    """Whether a refusal speaks of the month's quota, not of a rate."""
    return any(word in text.lower() for word in ("month", "quota"))


class CohortTooLargeError(ConfigurationError):
    """The cohort has more members than Amplitude lets download."""


def refusal(
    status: int, text: str, said: str, facts: dict[str, Any], *, costs: bool, of_request: bool
) -> SyncError:
    """What an answer between 400 and 499 other than 408 and 429 means; `said` are its own words, `facts` the call's.

    Observed are two alone: a wrong secret says "Invalid API/Secret Key combination", an unknown key (usually the
    other region's) "Invalid API Key", both with 403. The rest is told from its words, then from its status.
    """
    words = text.lower()
    if "invalid api key" in words:
        return ConfigurationError("AMPLITUDE_REGION", **facts)
    if "invalid api/secret" in words or status == 401:  # noqa: PLR2004 - Unauthorized
        return ConfigurationError("AMPLITUDE_CREDENTIALS", **facts)
    if costs:
        return _of_request(status, words, said, facts)
    if of_request and status in _NOT_THERE:
        # An id that is not known yet, or not any more, or whose file is not ready: no documented status.
        return TransientError("AMPLITUDE_UNAVAILABLE", f"{facts['call'].capitalize()} answered {status}.")
    return _unexplained(status, said, facts)


def _of_request(status: int, words: str, said: str, facts: dict[str, Any]) -> SyncError:
    if of_quota(words):
        return ConfigurationError("AMPLITUDE_QUOTA", **facts)
    if status == 413 or "too large" in words:  # noqa: PLR2004 - Content Too Large
        return CohortTooLargeError("COHORT_TOO_LARGE", **facts)
    if "archived" in words:
        return ConfigurationError("COHORT_ARCHIVED", **facts)
    if "property" in words or "propkey" in words:
        return ConfigurationError("AMPLITUDE_PROPERTY", **facts)
    if "not found" in words or status == 404:  # noqa: PLR2004 - Not Found
        return ConfigurationError("COHORT_NOT_FOUND", **facts)
    return _unexplained(status, said, facts)


def _unexplained(status: int, said: str, facts: dict[str, Any]) -> SyncError:
    """A refusal of which only Amplitude's own words may say why."""
    if status == 403:  # noqa: PLR2004 - Forbidden
        return ConfigurationError("AMPLITUDE_FORBIDDEN", said, **facts)
    return ContractError("AMPLITUDE_CONTRACT", f"It answered {status}. {said}".strip(), **facts)


def said(text: str, secrets: Iterable[str]) -> str:
    """The envelope's own words, {"error": {message, metadata: {details}}}, kept short and free of our keys."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    if not isinstance(error, dict):
        return ""
    details = error.get("metadata")
    found = error.get("message") or (details.get("details") if isinstance(details, dict) else None)
    if not isinstance(found, str):
        return ""
    for secret in secrets:
        found = found.replace(secret, "…")
    return f'It said: "{"".join(c if c.isprintable() else " " for c in found)[:SAID_MAX]}".'


def _instant(value: object) -> datetime | None:
    """Epoch seconds; whatever is out of a calendar's range is none."""
    if not isinstance(value, int):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
