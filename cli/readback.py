"""The demo's own eyes: the data extension read over Marketing Cloud's API, page by page.

It shares no code with the worker on purpose. A comparison by the code that wrote the rows could repeat its
mistake; this one knows nothing but the vendor's documentation and two sets of members.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

PAGE_SIZE = 2500
TRUE, FALSE, EMPTY = "true", "false", ""
SHOWN = 5


@dataclass
class Reading:
    """Every row as (attribute → value), by contact key; names and values in lower case."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    pages: int = 0
    seconds: float = 0.0
    repeated: int = 0


@dataclass
class Verdict:
    """What one attribute says against what its cohort says."""

    attribute: str
    members: int
    left: int
    flagged: int = 0
    unflagged: int = 0
    missing: list[str] = field(default_factory=list)  # in the cohort, not flagged
    extra: list[str] = field(default_factory=list)  # flagged, not in the cohort
    lost: list[str] = field(default_factory=list)  # left the cohort, and the row does not say so

    @property
    def equal(self) -> bool:
        """Whether the flags are the cohort, member by member."""
        return not (self.missing or self.extra or self.lost)


def read(auth_url: str, client_id: str, client_secret: str, key: str) -> Reading:
    """All rows of the data extension with that external key."""
    begun, found = time.monotonic(), Reading()
    with requests.Session() as session:
        session.trust_env = False
        token = _json(
            session.post(
                auth_url,
                json={
                    "grant_type": "client_credentials",
                    "client_id": client_id,
                    "client_secret": client_secret,
                },
                timeout=30,
            )
        )
        session.headers["Authorization"] = f"Bearer {token['access_token']}"
        base = token["rest_instance_url"].rstrip("/")
        link = f"/data/v1/customobjectdata/key/{key}/rowset?$pageSize={PAGE_SIZE}&$page=1"
        while link:
            page = _json(session.get(base + link, timeout=60))
            found.pages += 1
            for item in page.get("items", ()):
                contact = item["keys"]["contact key"]
                found.repeated += contact in found.rows
                found.rows[contact] = {name: value.lower() for name, value in item["values"].items()}
            following = page["links"].get("next")
            link = f"/data{following}" if following else ""  # the vendor leaves its prefix out
    found.seconds = time.monotonic() - begun
    return found


def compare(reading: Reading, attribute: str, members: set[str], before: set[str]) -> Verdict:
    """Member by member: `members` are in the cohort now, `before` were at the first sync."""
    left = before - members
    found = Verdict(attribute, len(members), len(left))
    name = attribute.lower()
    values = {contact: row.get(name, EMPTY) for contact, row in reading.rows.items()}
    found.flagged = sum(value == TRUE for value in values.values())
    found.unflagged = sum(value == FALSE for value in values.values())
    found.missing = sorted(contact for contact in members if values.get(contact) != TRUE)
    found.extra = sorted(c for c, value in values.items() if value == TRUE and c not in members)
    found.lost = sorted(contact for contact in left if values.get(contact) != FALSE)
    return found


def strangers(reading: Reading, attributes: Mapping[str, set[str]]) -> list[str]:
    """Rows that are nobody's, and rows where something was written that no binding owns."""
    ever = set().union(*attributes.values())
    ours = {name.lower() for name in attributes}
    return sorted(
        contact
        for contact, row in reading.rows.items()
        if contact not in ever
        or any(value != EMPTY and name not in ours for name, value in row.items())
        or any(row.get(a.lower(), EMPTY) != EMPTY and contact not in ids for a, ids in attributes.items())
    )


def _json(response: requests.Response) -> dict[str, Any]:
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    return body
