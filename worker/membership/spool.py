"""Key arrays and fingerprints on disk, so that no diff's memory grows with its cohort.

Files have no name (they are gone with the process, however it ends) and are read by position, never mapped:
mapped pages would count as the process's memory.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.contact_keys.key_array import TEXT, U8, U64, KeyArray

U32 = npt.NDArray[np.uint32]
Bounds = npt.NDArray[np.int64]


class _File:
    """An unnamed file of columns."""

    def __init__(self, workdir: Path) -> None:
        self._handle, name = tempfile.mkstemp(dir=workdir)
        os.unlink(name)  # noqa: PTH108 - a path object for one call
        weakref.finalize(self, os.close, self._handle)
        self._end = 0

    def write(self, *columns: npt.NDArray[np.generic]) -> int:
        """Where the first of them begins."""
        start = self._end
        parts = [np.ascontiguousarray(column).data.cast("B") for column in columns if column.size]
        size = sum(part.nbytes for part in parts)
        self._end += size
        written = os.pwritev(self._handle, parts, start) if parts else 0
        if written != size:  # a full disk may write a part and only then fail
            whole = b"".join(parts)
            while written < size:
                written += os.pwrite(self._handle, whole[written:], start + written)
        return start

    def read(self, start: int, out: npt.NDArray[np.generic]) -> None:
        """Fill `out`."""
        if out.size and os.preadv(self._handle, [out.data.cast("B")], start) != out.nbytes:
            raise OSError("a spilled column is shorter than it was written")


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    first: int
    rows: int
    texts: int
    bytes: int


class KeySpool:
    """Key arrays in the order they came; rows are numbered through all of them."""

    def __init__(self, workdir: Path) -> None:
        self._file = _File(workdir)
        self._pieces: list[_Piece] = []
        self.rows = 0

    def append(self, keys: KeyArray) -> int:
        """The number of this array."""
        hi, lo = keys.hi, keys.lo
        if keys.texts:
            plain = keys.kind != TEXT
            hi, lo = hi[plain], lo[plain]
        start = self._file.write(hi, lo, keys.ends, keys.kind, keys.text)
        self._pieces.append(_Piece(start, self.rows, len(keys), keys.texts, keys.text.nbytes))
        self.rows += len(keys)
        return len(self._pieces) - 1

    def __iter__(self) -> Iterator[KeyArray]:
        return map(self.read, range(len(self._pieces)))

    def read(self, number: int) -> KeyArray:
        """One array."""
        piece = self._pieces[number]
        plain = piece.rows - piece.texts
        hi, lo = np.empty(plain, np.uint64), np.empty(plain, np.uint64)
        ends = np.empty(piece.texts + 1, np.int64)
        kind, text = np.empty(piece.rows, np.uint8), np.empty(piece.bytes, np.uint8)
        at = piece.start
        for column in (hi, lo, ends, kind, text):
            self._file.read(at, column)
            at += column.nbytes
        if not piece.texts:
            return KeyArray(kind, hi, lo, text, ends)
        high, low = np.zeros(piece.rows, np.uint64), np.zeros(piece.rows, np.uint64)
        high[kind != TEXT], low[kind != TEXT] = hi, lo
        return KeyArray(kind, high, low, text, ends)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Fingerprints of one array sorted by partition; `rows` are positions in that array, `bounds` the partitions'."""

    hi: U64
    lo: U64
    rows: U32
    bounds: Bounds


def by_partition(hi: U64, lo: U64, partition: U8, partitions: int) -> Sorted:
    """Rows of one partition stay in order."""
    if partitions == 1:
        return Sorted(hi, lo, np.arange(len(hi), dtype=np.uint32), np.array([0, len(hi)]))
    bounds = np.zeros(partitions + 1, np.int64)
    np.cumsum(np.bincount(partition, minlength=partitions), out=bounds[1:])
    order = np.argsort(partition, kind="stable")
    return Sorted(hi[order], lo[order], order.astype(np.uint32), bounds)


class PartitionSpool:
    """Fingerprints and their row numbers, to be read back partition by partition in the order they came."""

    def __init__(self, workdir: Path) -> None:
        self._file = _File(workdir)
        self._segments: list[tuple[int, int, int, Bounds]] = []

    def append(self, part: Sorted, first: int) -> None:
        """`first` is the number of the array's first row."""
        start = self._file.write(part.hi, part.lo, part.rows)
        self._segments.append((start, first, len(part.hi), part.bounds))

    def size(self, partition: int) -> int:
        """Rows of one partition."""
        return sum(int(bounds[partition + 1] - bounds[partition]) for *_, bounds in self._segments)

    def read(self, partition: int, limit: int) -> Iterator[tuple[U64, U64, U32]]:
        """The partition in pieces of about `limit` rows: high, low, row number."""
        batch: list[tuple[int, int, int, int, int]] = []
        size = 0
        for start, first, rows, bounds in self._segments:
            begin, count = int(bounds[partition]), int(bounds[partition + 1] - bounds[partition])
            if not count:
                continue
            batch.append((start, first, rows, begin, count))
            size += count
            if size >= limit:
                yield self._load(batch, size)
                batch, size = [], 0
        if batch:
            yield self._load(batch, size)

    def _load(self, batch: list[tuple[int, int, int, int, int]], size: int) -> tuple[U64, U64, U32]:
        hi, lo, rows = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.uint32)
        at = 0
        for start, first, length, begin, count in batch:
            stop = at + count
            self._file.read(start + 8 * begin, hi[at:stop])
            self._file.read(start + 8 * (length + begin), lo[at:stop])
            self._file.read(start + 16 * length + 4 * begin, rows[at:stop])
            rows[at:stop] += np.uint32(first)
            at = stop
        return hi, lo, rows
