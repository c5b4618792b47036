"""Both sides of a diff, read once and laid down so that they can be compared piece by piece.

Parsing and decoding run in threads (numpy and zlib let go of the interpreter lock); this thread alone reads the
state, because a database connection belongs to the thread that opened it, and writes the spools, so that rows
are numbered in the order they came.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from models.contact_keys.codec import decode
from models.contact_keys.key_array import TEXT, U8, Bool, KeyArray
from models.errors import ContractError
from worker.membership import odd_keys
from worker.membership.csv_fast import Cells
from worker.membership.csv_reference import Spans
from worker.membership.fingerprint import Fingerprints
from worker.membership.odd_keys import OddKeys
from worker.membership.snapshot_file import SnapshotFile
from worker.membership.spool import U32, KeySpool, PartitionSpool, Sorted, by_partition
from worker.membership.twins import Folds

THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
PARTITION = 200_000
"""Rows of one side that a partition aims at: its records and their order fit the second-level cache or nearly."""
PARTITION_BITS = 8

_SAMPLE = 1 << 16
_ROWS = (1 << 32) - 1  # a row's number is kept in four bytes

Item = TypeVar("Item")
Result = TypeVar("Result")


class Marks:
    """One bit a row."""

    def __init__(self, bits: U8) -> None:
        self._bits = bits

    @classmethod
    def none(cls, rows: int) -> Self:
        """So many rows, none of them marked."""
        return cls(np.zeros(-(-rows // 8), np.uint8))

    @classmethod
    def where(cls, marked: Bool) -> Self:
        """These rows."""
        return cls(np.packbits(marked, bitorder="little"))

    def add(self, rows: U32) -> None:
        """Mark these rows."""
        np.bitwise_or.at(self._bits, rows >> 3, np.uint8(1) << (rows & 7).astype(np.uint8))

    def at(self, rows: U32) -> Bool:
        """Whether these rows are marked."""
        marked: Bool = (self._bits[rows >> 3] >> (rows & 7).astype(np.uint8) & np.uint8(1)).view(np.bool_)
        return marked

    def between(self, first: int, stop: int) -> Bool:
        """The same of the rows from the first on."""
        bits = np.unpackbits(self._bits[first // 8 : -(-stop // 8)], bitorder="little")
        return bits[first % 8 : first % 8 + stop - first].view(np.bool_)


class DiffInput:
    """One side's rows: the kind of each key, fingerprints by partition, and the texts of those that have one.

    The fingerprint of a UUID is the UUID, so nothing else is kept of it: 21 bytes a row in place of 38.
    """

    def __init__(self, workdir: Path) -> None:
        self.kinds: list[U8] = []
        self.prints = PartitionSpool(workdir)
        self.rows = 0
        self._texts = KeySpool(workdir)
        self._folds: list[Folds] = []

    @property
    def folds(self) -> Folds:
        """The rows that a collation may take for another one."""
        return Folds.concat(self._folds)

    def append(self, keys: KeyArray, part: Sorted, folds: Folds) -> None:
        """One more array."""
        if self.rows + len(keys) > _ROWS:
            raise ContractError("SNAPSHOT_TOO_LARGE", limit=f"{_ROWS:,} rows")
        self.kinds.append(keys.kind)
        self.prints.append(part, self.rows)
        if len(folds.rows):
            self._folds.append(Folds(folds.rows + self.rows, folds.words))
        self.rows += len(keys)
        self._texts.append(keys.only_texts())

    def joined_kinds(self) -> U8:
        """The kinds of all rows as one array, of which `kinds` are parts from now on."""
        whole = np.concatenate([*self.kinds, np.zeros(0, np.uint8)])
        self.kinds = np.split(whole, np.cumsum([len(kind) for kind in self.kinds])[:-1]) if self.kinds else []
        return whole

    def texts(self, marks: Marks) -> Iterator[KeyArray]:
        """The texts of the rows that are marked."""
        first = 0
        for number, kind in enumerate(self.kinds):
            chosen = marks.between(first, first + len(kind))
            first += len(kind)
            if chosen.any():
                rows = np.flatnonzero(chosen[kind == TEXT])
                yield self._texts.read(number).take(rows)


@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted while the snapshot was read."""

    rows: int
    blank: int
    longest: int
    odd: OddKeys
    spans: Spans
    digest: str


class Intake:
    """Reads sides for one diff."""

    def __init__(
        self, pool: ThreadPoolExecutor, fingerprints: Fingerprints, expected: int, workdir: Path
    ) -> None:
        self.bits = min(max((expected // PARTITION).bit_length(), 0), PARTITION_BITS)
        self.partitions = 1 << self.bits
        self._pool = pool
        self._fingerprints = fingerprints
        self._workdir = workdir

    def blobs(self, blobs: Iterable[bytes]) -> DiffInput:
        """The keys of some blobs."""
        side = DiffInput(self._workdir)
        # Not one more than are worked on: a part of the state has ten times as many rows as a piece of a file.
        decoded = ordered(self._pool, lambda blob: self._sorted(decode(blob)), blobs, ahead=THREADS)
        for keys, part, folds in decoded:
            side.append(keys, part, folds)
        return side

    def cells(
        self, read: Callable[[Item], Cells], items: Iterable[Item], names: frozenset[str]
    ) -> tuple[DiffInput, tuple[int, int, int, OddKeys]]:
        """The side that `read` makes of the items; its rows, blank ones, longest key and odd keys.

        `names` are the column's, in lower case: as a key they are odd.
        """

        def prepared(item: Item) -> tuple[Cells, Sorted, Folds, OddKeys]:
            cells = read(item)
            _, part, folds = self._sorted(cells.keys)
            return cells, part, folds, odd_keys.find(cells.keys, names)

        side = DiffInput(self._workdir)
        rows = blank = longest = 0
        odd = OddKeys()
        for cells, part, folds, found in ordered(self._pool, prepared, items):
            side.append(cells.keys, part, folds)
            rows += cells.rows
            blank += cells.blank
            longest = max(longest, cells.longest)
            odd += found
        return side, (rows, blank, longest, odd)

    def _sorted(self, keys: KeyArray) -> tuple[KeyArray, Sorted, Folds]:
        hi, lo = self._fingerprints.of(keys)
        if not self.bits:
            partition = np.zeros(0, np.uint8)
        else:
            partition = (self._fingerprints.mix(hi, lo) >> np.uint64(64 - self.bits)).astype(np.uint8)
        part = by_partition(hi, lo, partition, self.partitions)
        return keys, part, Folds.of(keys, self._fingerprints)


def ordered(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = THREADS + 1,
) -> Iterator[Result]:
    """Like map, with no more than `ahead` items under way."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def expected_rows(file: SnapshotFile) -> int:
    """A guess from the beginning of the file."""
    with file.path.open("rb") as source:
        source.seek(file.start)
        sample = source.read(_SAMPLE)
    return (file.size - file.start) * (sample.count(b"\n") + 1) // max(len(sample), 1)
