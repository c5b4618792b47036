"""The demo's own eyes: the rows as the product's client reads them, compared in a way of its own.

Pages have one reader (`MarketingCloud.pages`). The comparison shares nothing with the worker on purpose: two sets of
members as texts, not the keys, states and diffs of the code that wrote the rows, which could repeat its mistake.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from models.tables import Destination
from worker.context import Context
from worker.vendors.marketing_cloud.client import MarketingCloud

TRUE, FALSE, EMPTY = "true", "false", ""
SHOWN = 5


@dataclass
class DemoReadback:
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


def read(ctx: Context, destination: Destination) -> DemoReadback:
    """All rows of the destination's data extension."""
    begun, found = time.monotonic(), DemoReadback()
    with closing(MarketingCloud(ctx, destination)) as cloud:
        for page in cloud.pages(cloud.find().key):
            found.pages += 1
            for contact, values in page.rows:
                found.repeated += contact in found.rows
                found.rows[contact] = {name: str(value).lower() for name, value in values.items()}
    found.seconds = time.monotonic() - begun
    return found


def compare(reading: DemoReadback, attribute: str, members: set[str], before: set[str]) -> Verdict:
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


def strangers(reading: DemoReadback, attributes: Mapping[str, set[str]]) -> list[str]:
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
