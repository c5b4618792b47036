"""Contacts that a collation may take for one row: nobody is unflagged because such a twin of theirs left.

An exit whose compatibility key is that of a member is spared. Words of 64 bits stand for the keys: should two fall
together, an exit waits for the next run, whose seed is another. Few keys have a compatibility key of their own, so a
cohort in plain ASCII costs a look for other bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.contact_keys import ragged
from models.contact_keys.comparison import comparison_key
from models.contact_keys.compatibility import compatibility_key
from models.contact_keys.key_array import I64, TEXT, U64, Bool, KeyArray
from worker.membership.fingerprint import Fingerprints
from worker.membership.spool import PartitionSpool

_SPACE, _DELETE = 0x20, 0x7F
_PIECE = 200_000


@dataclass(frozen=True, slots=True)
class Folds:
    """The rows, in order, whose compatibility key is not their comparison key, and the word of each."""

    rows: I64
    words: U64

    @classmethod
    def of(cls, keys: KeyArray, fingerprints: Fingerprints) -> Folds:
        """Of one array."""
        found = [
            (row, fold)
            for row, key in _suspects(keys)
            if (fold := compatibility_key(key)) != comparison_key(key)
        ]
        words = fingerprints.mix(*fingerprints.of(KeyArray.of([fold for _, fold in found])))
        texts = np.flatnonzero(keys.kind == TEXT)
        return cls(texts[np.array([row for row, _ in found], np.int64)], words)

    @classmethod
    def concat(cls, parts: Sequence[Folds]) -> Folds:
        """One after the other; their rows are numbered through already."""
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(part.rows for part in parts)]),
            np.concatenate([np.zeros(0, np.uint64), *(part.words for part in parts)]),
        )

    def words_of(self, rows: I64, own: U64) -> U64:
        """The words of some rows: where they have none here, their `own`."""
        if not len(self.rows):
            return own
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[at] == rows, self.words[at], own)


class Twins:
    """The members that a leaving key may be a twin of."""

    def __init__(
        self,
        members: Folds,
        prints: PartitionSpool,
        leaving: Sequence[Folds],
        bits: int,
        fingerprints: Fingerprints,
    ) -> None:
        """`prints` are the snapshot's, in 2^bits partitions; `leaving` are the sides whose keys may exit."""
        self._fingerprints = fingerprints
        wanted = np.unique(np.concatenate([np.zeros(0, np.uint64), *(folds.words for folds in leaving)]))
        plain = [np.zeros(0, np.uint64)]
        partitions = np.unique(wanted >> np.uint64(64 - bits)) if bits else np.zeros(min(len(wanted), 1))
        for partition in partitions.tolist():
            for hi, lo, _ in prints.read(int(partition), _PIECE):
                plain.append(np.intersect1d(wanted, fingerprints.mix(hi, lo)))
        self._words = np.unique(np.concatenate([members.words, *plain]))

    def among(self, folds: Folds, hi: U64, lo: U64, rows: I64) -> Bool:
        """Which of these records of one side have a twin in the cohort."""
        if not len(self._words):
            return np.zeros(len(rows), np.bool_)
        return np.isin(folds.words_of(rows, self._fingerprints.mix(hi, lo)), self._words)


def _suspects(keys: KeyArray) -> list[tuple[int, str]]:
    """The texts, by their number, that may have a compatibility key of their own."""
    if ragged.is_plain(keys.text):
        return []
    raw = keys.text.tobytes()
    odd = np.flatnonzero((keys.text < _SPACE) | (keys.text >= _DELETE))
    rows = np.unique(np.searchsorted(keys.ends, odd, side="right") - 1)
    return [(row, raw[keys.ends[row] : keys.ends[row + 1]].decode()) for row in rows.tolist()]
