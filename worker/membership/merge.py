"""Which contacts of one partition entered, left or stayed: exact on fingerprints, with no file and no text.

All records of a partition are sorted by 64-bit words made of upper bits of their mixed fingerprint and of their
position, which numpy sorts ten times faster than it sorts positions by a key. Records of one contact then stand
together, oldest first: state, uncertain, snapshot. Neighbours are compared in all 128 bits; where two contacts
share the upper bits, the partition is sorted again by everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.contact_keys.key_array import U64, Bool
from worker.membership.fingerprint import Fingerprints
from worker.membership.spool import U32

_SPENT = np.uint64(8)
"""Upper bits of the mixed fingerprint that chose the partition and are the same for all of it."""

Intp = npt.NDArray[np.intp]
Records = tuple[U64, U64, U32]
"""Fingerprints, high and low, and row numbers."""

NOTHING: Records = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint32))


@dataclass(frozen=True, slots=True)
class PartitionOutcome:
    """The records of what changed, and how many contacts there were."""

    entered: Records
    exited: Records
    exited_uncertain: Records
    members: int
    known: int
    named: int
    """Contacts of the state, members or not."""


def merge(
    state: Records, alive: Bool, uncertain: Records, snapshot: Records, fingerprints: Fingerprints
) -> PartitionOutcome:
    """`alive` says of each record of the state whether it made its contact a member; the last record counts.

    entered = snapshot - (state - uncertain); exited = (state + uncertain) - snapshot. An entered contact is
    named by its first row in the snapshot, one that left by its last in the state, or else in `uncertain`.
    """
    hi = np.concatenate([state[0], uncertain[0], snapshot[0]])
    lo = np.concatenate([state[1], uncertain[1], snapshot[1]])
    if not len(hi):
        return PartitionOutcome(NOTHING, NOTHING, NOTHING, 0, 0, 0)
    order, begins = group(hi, lo, fingerprints)
    n_state, n_uncertain = len(state[0]), len(uncertain[0])
    in_state = np.add.reduceat(order < n_state, begins, dtype=np.intp)
    size = np.diff(begins, append=len(order))
    older = n_state + n_uncertain
    before = np.add.reduceat(order < older, begins, dtype=np.intp) if n_uncertain else in_state
    present = size > before
    known = in_state > 0
    named = int(np.count_nonzero(known))
    known[known] = alive[order[(begins + in_state - 1)[known]]]
    unsure = before > in_state
    enters = present & (~known | unsure)
    leaves = known & ~present
    leaves_unsure = unsure & ~known & ~present

    def chosen(records: Records, first: int, which: Intp) -> Records:
        return hi[which], lo[which], records[2][which - first]

    return PartitionOutcome(
        chosen(snapshot, older, order[(begins + before)[enters]]),
        chosen(state, 0, order[(begins + in_state - 1)[leaves]]),
        chosen(uncertain, n_state, order[(begins + before - 1)[leaves_unsure]]),
        int(np.count_nonzero(present)),
        int(np.count_nonzero(known)),
        named,
    )


def group(hi: U64, lo: U64, fingerprints: Fingerprints) -> tuple[Intp, Intp]:
    """Positions with equal fingerprints side by side, in order, and where each group begins."""
    n = len(hi)
    mask = np.uint64((1 << n.bit_length()) - 1)
    words = fingerprints.mix(hi, lo)
    words <<= _SPENT
    words &= ~mask
    words |= np.arange(n, dtype=np.uint64)
    words.sort()
    order = (words & mask).view(np.int64)
    differs, unlike = _differs(hi, lo, order), np.empty(n, np.bool_)
    words &= ~mask
    unlike[0] = True
    np.not_equal(words[1:], words[:-1], out=unlike[1:])
    if (differs != unlike).any():
        order = np.lexsort((lo, hi))
        differs = _differs(hi, lo, order)
    return order, np.flatnonzero(differs)


def reduced(pieces: Iterator[Records], fingerprints: Fingerprints, *, last: bool) -> Records:
    """One record a contact, the first or the last: for a partition that repeats few contacts very often."""
    kept = NOTHING
    for piece in pieces:
        hi, lo = np.concatenate([kept[0], piece[0]]), np.concatenate([kept[1], piece[1]])
        rows = np.concatenate([kept[2], piece[2]])
        order, begins = group(hi, lo, fingerprints)
        chosen = np.sort(order[np.append(begins[1:], len(order)) - 1] if last else order[begins])
        kept = hi[chosen], lo[chosen], rows[chosen]
    return kept


def _differs(hi: U64, lo: U64, order: Intp) -> Bool:
    hi, lo = hi[order], lo[order]
    differs = np.empty(len(order), np.bool_)
    differs[0] = True
    np.not_equal(hi[1:], hi[:-1], out=differs[1:])
    differs[1:] |= lo[1:] != lo[:-1]
    return differs
