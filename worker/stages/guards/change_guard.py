"""The guards: what a run may do to a binding's members before a person has looked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from models.errors import HeldForApproval
from models.tables import CohortBinding
from worker.membership.diff import DiffCounts

# In force where a binding sets no limit of its own, and only from that many contacts on, so that a small cohort, which
# changes by large shares, holds nobody up. A limit that a person has set counts from the first contact.
DEFAULT_MAX_REMOVAL_PERCENT = 50
DEFAULT_MAX_GROWTH_PERCENT = 900
# A snapshot names who has no value of the mapped property, which anonymous users never have.
DEFAULT_MAX_BLANK_PERCENT = 90
DEFAULT_MAX_DUPLICATE_PERCENT = 90
DEFAULT_GUARD_FROM = 1_000
HISTORY = 10  # runs whose members are compared with
HISTORY_MIN = 3  # fewer say nothing of what is usual


@dataclass(frozen=True)
class Past:
    """What earlier runs of the binding left: the members of the last good ones, the newest first, how many the last
    run was to reach, the ids of the data extension that acknowledged last and of the one that is there now, and when
    the newest snapshot was requested that a good run pushed, and when this run's was.
    """

    sizes: tuple[int, ...] = ()
    reached: int = 0
    acknowledged_by: str | None = None
    there_now: str | None = None
    state_at: datetime | None = None
    snapshot_at: datetime | None = None


def objection(
    binding: CohortBinding,
    counts: DiffCounts,
    *,
    run: int | str,
    full: bool = False,
    past: Past | None = None,
    clearing: int | None = None,
) -> HeldForApproval | None:
    """Why the run would be held, if it would. Of a full run the removed count, of those who are flagged.

    `clearing`: a person asked for every flag to be set to false; this many of them nobody knew of.
    """
    past = past or Past()
    exited = counts.removed if full else counts.exited

    def held(code: str, **facts: Any) -> HeldForApproval:
        return HeldForApproval(code, run=run, binding=binding.name, **facts)

    if clearing is not None:
        return next(iter((*_other_extension(past, held), *_unknown(binding, counts, clearing, held))), None)
    checks: tuple[Callable[[], Iterator[HeldForApproval]], ...] = (
        lambda: _other_extension(past, held),
        lambda: _older(past, held),
        lambda: _removal(binding, counts, exited, held),
        lambda: _growth(binding, counts, past, held),
        lambda: _first_sync(binding, counts, held),
        lambda: _share(
            "BLANK_GUARD", binding.max_blank_percent, DEFAULT_MAX_BLANK_PERCENT, counts.blank, counts, held
        ),
        lambda: _share(
            "DUPLICATE_GUARD",
            binding.max_duplicate_percent,
            DEFAULT_MAX_DUPLICATE_PERCENT,
            counts.duplicate,
            counts,
            held,
        ),
        lambda: _deviation(binding, counts, past, held),
    )
    return next((one for check in checks for one in check()), None)


Held = Callable[..., HeldForApproval]


def _other_extension(past: Past, held: Held) -> Iterator[HeldForApproval]:
    if past.acknowledged_by and past.there_now and past.acknowledged_by != past.there_now:
        yield held("EXTENSION_GUARD", before=past.acknowledged_by, now=past.there_now)


def _older(past: Past, held: Held) -> Iterator[HeldForApproval]:
    if past.state_at and past.snapshot_at and past.snapshot_at < past.state_at:
        taken, newest = (f"{at:%Y-%m-%d %H:%M:%S} UTC" for at in (past.snapshot_at, past.state_at))
        yield held("SNAPSHOT_AGE_GUARD", taken=taken, newest=newest)


def _removal(
    binding: CohortBinding, counts: DiffCounts, exited: int, held: Held
) -> Iterator[HeldForApproval]:
    members = counts.state_members
    limit = _limit(binding.max_removal_percent, DEFAULT_MAX_REMOVAL_PERCENT, exited)
    if not exited or not members or limit is None:
        return
    if not counts.members and limit < 100:  # noqa: PLR2004 - a hundred per cent
        yield held("EMPTY_GUARD", members=f"{members:,}")
    # Keys of lost pushes leave too, though the state never held them: all is never more than a hundred per cent.
    elif exited * 100 > limit * max(members, exited):
        percent = round(exited * 100 / max(members, exited), 1)
        yield held(
            "REMOVAL_GUARD", exited=f"{exited:,}", members=f"{members:,}", limit=limit, percent=percent
        )


def _unknown(
    binding: CohortBinding, counts: DiffCounts, unknown: int, held: Held
) -> Iterator[HeldForApproval]:
    """Flags that are not ours, as far as anybody knows, go with those that a person asked about."""
    limit = _limit(binding.max_removal_percent, DEFAULT_MAX_REMOVAL_PERCENT, unknown)
    flagged = max(counts.state_members, unknown)
    if limit is not None and unknown * 100 > limit * flagged:
        percent = round(unknown * 100 / flagged, 1)
        yield held(
            "REMOVAL_GUARD", exited=f"{unknown:,}", members=f"{flagged:,}", limit=limit, percent=percent
        )


def _growth(binding: CohortBinding, counts: DiffCounts, past: Past, held: Held) -> Iterator[HeldForApproval]:
    # A first sync that was cut off is no small cohort that grows: what it was to reach counts.
    before = max(counts.state_members, past.reached)
    grown = counts.members - before
    limit = _limit(binding.max_growth_percent, DEFAULT_MAX_GROWTH_PERCENT, grown)
    if before and limit is not None and grown * 100 > limit * before:
        yield held("GROWTH_GUARD", members=f"{counts.members:,}", before=f"{before:,}", limit=limit)


def _first_sync(binding: CohortBinding, counts: DiffCounts, held: Held) -> Iterator[HeldForApproval]:
    limit = binding.max_first_sync
    if not counts.state_members and limit is not None and counts.members > limit:
        yield held("FIRST_SYNC_GUARD", members=f"{counts.members:,}", limit=f"{limit:,}")


def _share(
    code: str, own: int | None, default: int, some: int, counts: DiffCounts, held: Held
) -> Iterator[HeldForApproval]:
    limit = _limit(own, default, some)
    if limit is not None and some * 100 > limit * counts.snapshot_rows:
        yield held(code, some=f"{some:,}", rows=f"{counts.snapshot_rows:,}", limit=limit)


def _deviation(
    binding: CohortBinding, counts: DiffCounts, past: Past, held: Held
) -> Iterator[HeldForApproval]:
    limit = binding.max_deviation_percent
    if limit is None or len(past.sizes) < HISTORY_MIN:
        return
    usual = median(past.sizes)
    if abs(counts.members - usual) * 100 > limit * usual:
        yield held(
            "DEVIATION_GUARD",
            members=f"{counts.members:,}",
            usual=f"{usual:,.0f}",
            runs=len(past.sizes),
            limit=limit,
        )


def _limit(own: int | None, default: int, contacts: int) -> int | None:
    """The limit in force, if there is one for that many contacts."""
    if own is not None:
        return own
    return default if contacts >= DEFAULT_GUARD_FROM else None
