"""The guard: how many members a run may remove before a person has looked. Pure."""

from __future__ import annotations

from models.errors import HeldForApproval
from models.tables import CohortBinding
from models.types import Trigger
from worker.membership.diff import DiffCounts

# Without a limit of its own, a binding's scheduled run is held when it would remove half of its members, and at
# least so many. A manual run has a person looking at it, who can't know what a full one will find.
DEFAULT_MAX_REMOVAL_PERCENT = 50
DEFAULT_GUARD_FROM = 1_000


def objection(
    binding: CohortBinding, counts: DiffCounts, trigger: str, *, run: int | str, full: bool = False
) -> HeldForApproval | None:
    """Why the run would be held, if it would. Of a full run the removed count, of those who are flagged."""
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
