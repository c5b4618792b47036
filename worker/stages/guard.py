"""The guard: what a run may do before a person has looked, going by its file and by whom it would remove. Pure."""

from __future__ import annotations

from typing import Any

from models.errors import HeldForApproval
from models.tables import CohortBinding
from models.types import Trigger
from worker.membership.diff import DiffCounts

# Without a limit of its own, a binding's scheduled run is held when it would remove half of its members, and at
# least so many. A manual run has a person looking at it, who can't know what a full one will find.
DEFAULT_MAX_REMOVAL_PERCENT = 50
DEFAULT_GUARD_FROM = 1_000


FEW = 3
"""Fewer odd rows than this are no reason to hold a run, however small its file is."""


def objection(
    binding: CohortBinding,
    counts: DiffCounts,
    trigger: str,
    *,
    run: int | str,
    odd_percent: float,
    full: bool = False,
) -> HeldForApproval | None:
    """Why the run would be held, if it would. Of a full run the removed count, of those who are flagged."""
    return _file(counts, odd_percent, run) or _removal(binding, counts, trigger, run=run, full=full)


def _file(counts: DiffCounts, odd_percent: float, run: int | str) -> HeldForApproval | None:
    """What speaks against the file: it says this who leaves, too."""
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
    if counts.duplicate >= FEW and counts.duplicate * 2 > rows:
        return HeldForApproval("DUPLICATES_GUARD", duplicate=f"{counts.duplicate:,}", **facts)
    return None


def _removal(
    binding: CohortBinding, counts: DiffCounts, trigger: str, *, run: int | str, full: bool
) -> HeldForApproval | None:
    members, exited = counts.state_members, counts.removed if full else counts.exited
    if not exited or not members:
        return None
    limit = binding.max_removal_percent
    if limit is None:
        if (trigger == Trigger.MANUAL and not full) or exited < DEFAULT_GUARD_FROM:
            return None
        limit = DEFAULT_MAX_REMOVAL_PERCENT
    if not counts.members and limit < 100:  # noqa: PLR2004 - a hundred per cent
        return HeldForApproval("EMPTY_GUARD", members=f"{members:,}", run=run)
    # Keys of lost pushes leave too, though the state never held them: all is never more than a hundred per cent.
    if exited * 100 <= limit * max(members, exited):
        return None
    return HeldForApproval(
        "REMOVAL_GUARD",
        exited=f"{exited:,}",
        members=f"{members:,}",
        limit=limit,
        run=run,
        percent=round(exited * 100 / max(members, exited), 1),
        binding=binding.name,
    )
