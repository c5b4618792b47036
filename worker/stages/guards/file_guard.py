"""What speaks against a snapshot's file: it decides who leaves, so a doubtful one holds the run. Pure."""

from __future__ import annotations

from typing import Any

from models.errors import HeldForApproval
from models.tables import CohortBinding
from worker.membership.diff import DiffCounts

FEW = 3
"""Fewer odd rows than this are no reason to hold a run, however small its file is."""
MOST_PERCENT = 50
"""More duplicates than this hold a run whose binding sets no limit of its own."""


def objection(
    binding: CohortBinding, counts: DiffCounts, *, odd_percent: float, run: int | str
) -> HeldForApproval | None:
    """Why the file would hold the run, if it would. `odd_percent`: the share of odd keys from which it does."""
    rows = counts.snapshot_rows - counts.blank
    facts: dict[str, Any] = {
        "rows": f"{rows:,}",
        "exited": f"{counts.exited:,}",
        "members": f"{counts.state_members:,}",
        "run": run,
    }

    def many(found: int) -> bool:
        return found >= FEW and odd_percent < 100 and found * 100 >= odd_percent * rows  # noqa: PLR2004 - per cent

    if counts.spanned_rows or many(counts.spanned):
        return HeldForApproval(
            "QUOTED_LINES_GUARD", lines=f"{counts.spanned:,}", like=f"{counts.spanned_rows:,}", **facts
        )
    if many(counts.odd):
        return HeldForApproval("ODD_KEYS_GUARD", odd=f"{counts.odd:,}", **facts)
    most = counts.duplicate >= FEW and counts.duplicate * 100 > MOST_PERCENT * rows
    if most and binding.max_duplicate_percent is None:
        return HeldForApproval(
            "DUPLICATE_GUARD",
            some=f"{counts.duplicate:,}",
            rows=f"{rows:,}",
            limit=MOST_PERCENT,
            binding=binding.name,
            run=run,
        )
    return None
