"""Folding acknowledged batches into a new generation of member chunks.

The old base and the batches are laid down on disk as sorted runs and merged block by block, so memory depends on
the number of runs and not on the cohort. The last word on a key counts; members are ordered by comparison key.

Nothing here trusts the order of what it reads: an older version may have sorted by an older Unicode. It writes
nothing but its temporary file; that the parts replace the old generation in one transaction is the caller's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.contact_keys import ragged, uuids
from models.contact_keys.codec import decode, encode
from models.contact_keys.comparison import comparison_key
from models.contact_keys.key_array import TEXT, Bool, KeyArray
from models.direction import Direction
from worker.membership.spool import KeySpool

PART = 250_000
"""Members of a part: 4 MB as UUIDs, a size that both databases keep well as one value."""

RUN = 250_000
BLOCK = 8_192
_FEW_RUNS = 8
_BLOCK_BYTES = 1 << 18
_RUN_BYTES = 1 << 25
_CELL = 128
"""Texts of up to so many bytes are sorted by numpy: 1,000,000 e-mail addresses in a third of the time."""

_SMALL = 10_000
_BATCHES = 200

Order = npt.NDArray[np.intp]


def compaction_due(base_n: int, delta_n: int, batches: int) -> bool:
    """Whether folding is worth a rewrite of the base.

    A diff reads a row of the delta as fast as one of the base, so a tenth more rows cost it a tenth more on one
    side. A binding whose base is small is rewritten in milliseconds, but not for every handful of changes.
    """
    return batches >= _BATCHES or delta_n * 10 >= max(base_n, _SMALL)


def compact(
    chunks: Iterable[bytes],
    deltas: Iterable[tuple[str, bytes]],
    *,
    part_size: int = PART,
    workdir: Path,
) -> Iterator[tuple[int, bytes]]:
    """The parts (n, blob) of the new generation: disjoint, and sorted by comparison key through all of them.

    Both iterables are read to their end before the first part is given, so parts may be written where those came from.
    """
    runs = _Runs(workdir)
    for blob in chunks:
        runs.base(decode(blob))
    for direction, blob in deltas:
        runs.delta(decode(blob), direction == Direction.ENTER)
    runs.close()
    waiting: list[KeyArray] = []
    held = 0
    for keys in runs.merged():
        waiting.append(keys)
        held += len(keys)
        if held >= part_size:
            joined = KeyArray.concat(waiting)
            whole = held - held % part_size
            for start in range(0, whole, part_size):
                yield part_size, encode(joined.slice(start, start + part_size))
            waiting, held = [joined.slice(whole, held)], held - whole
    if held:
        yield held, encode(KeyArray.concat(waiting))


@dataclass(slots=True)
class _Run:
    """A sorted run: its blocks in the spool, and what has been read of them but not merged yet."""

    blocks: list[tuple[int, Bool]] = field(default_factory=list)
    keys: KeyArray = field(default_factory=KeyArray.empty)
    alive: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    next: int = 0
    block: int = 1  # keys of one, as a rule

    @property
    def finished(self) -> bool:
        return self.next == len(self.blocks)


class _Runs:
    """Sorted runs, the older ones first."""

    def __init__(self, workdir: Path) -> None:
        self._spool = KeySpool(workdir)
        self._runs: list[_Run] = []
        self._last: str | None = None
        self._waiting: list[KeyArray] = []
        self._enters: list[bool] = []
        self._held = self._bytes = 0

    def base(self, keys: KeyArray) -> None:
        """The next chunk: it goes on with the run before it if it is in order."""
        if not len(keys):
            return
        keys, alive = _last_words(keys, np.ones(len(keys), np.bool_))
        first, last = _key_at(keys, 0), _key_at(keys, len(keys) - 1)
        if self._last is None or first <= self._last:
            self._runs.append(_Run())
        self._last = last
        self._store(self._runs[-1], keys, alive)

    def delta(self, keys: KeyArray, enters: bool) -> None:
        """The next batch."""
        self._waiting.append(keys)
        self._enters.append(enters)
        self._held += len(keys)
        self._bytes += keys.text.nbytes
        if self._held >= RUN or self._bytes >= _RUN_BYTES:
            self.close()

    def close(self) -> None:
        """Sort the batches that wait."""
        if self._held:
            alive = np.repeat(np.array(self._enters), [len(keys) for keys in self._waiting])
            self._runs.append(_Run())
            self._store(self._runs[-1], *_last_words(KeyArray.concat(self._waiting), alive))
        self._waiting, self._enters = [], []
        self._held = self._bytes = 0

    def merged(self) -> Iterator[KeyArray]:
        """Members in order."""
        runs = [run for run in self._runs if run.blocks]
        while True:
            for run in runs:
                while 2 * len(run.keys) < run.block and not run.finished:
                    self._refill(run)
            runs = [run for run in runs if len(run.keys)]
            if not runs:
                return
            open_ends = [_key_at(run.keys, len(run.keys) - 1) for run in runs if not run.finished]
            taken = [_take(run, min(open_ends) if open_ends else None) for run in runs]
            keys, alive = _last_words(
                KeyArray.concat([keys for keys, _ in taken]), np.concatenate([alive for _, alive in taken])
            )
            yield keys if alive.all() else keys.take(np.flatnonzero(alive))

    def _refill(self, run: _Run) -> None:
        number, alive = run.blocks[run.next]
        run.next += 1
        run.keys = KeyArray.concat([run.keys, self._spool.read(number)])
        run.alive = np.concatenate([run.alive, alive])

    def _store(self, run: _Run, keys: KeyArray, alive: Bool) -> None:
        # A step of the merge takes up to a block of each run: the more there are, the smaller are theirs.
        most = min(BLOCK, _FEW_RUNS * BLOCK // len(self._runs))
        run.block = rows = max(min(most, len(keys) * _BLOCK_BYTES // max(keys.text.nbytes, 1)), 1)
        for start in range(0, len(keys), rows):
            number = self._spool.append(keys.slice(start, min(start + rows, len(keys))))
            run.blocks.append((number, alive[start : start + rows]))


def _take(run: _Run, bound: str | None) -> tuple[KeyArray, Bool]:
    """What is not beyond the bound, removed from the run's buffer."""
    keys, alive = run.keys, run.alive
    stop = len(keys)
    if bound is not None:
        stop = bisect_right(range(len(keys)), bound, key=lambda row: _key_at(keys, row))
    run.keys, run.alive = keys.slice(stop, len(keys)), alive[stop:]
    return keys.slice(0, stop), alive[:stop]


def _key_at(keys: KeyArray, row: int) -> str:
    return comparison_key(keys.slice(row, row + 1).to_list()[0])


def _last_words(keys: KeyArray, alive: Bool) -> tuple[KeyArray, Bool]:
    """Sorted by comparison key; of equal ones the last stays. The very same arrays if there is nothing to do."""
    if not len(keys):
        return keys, alive
    order, ends = _by_number(keys) if not keys.texts else _by_text(keys)
    if len(order) == len(ends) == len(keys) and (order[1:] > order[:-1]).all():
        return keys, alive
    chosen = order[ends]
    return keys.take(chosen), alive[chosen]


def _by_number(keys: KeyArray) -> tuple[Order, Order]:
    """The order of UUIDs is that of their numbers."""
    order = np.argsort(keys.hi, kind="stable")
    hi, lo = keys.hi[order], keys.lo[order]
    if ((hi[1:] == hi[:-1]) & (lo[1:] < lo[:-1])).any():
        order = np.lexsort((keys.lo, keys.hi))
        hi, lo = keys.hi[order], keys.lo[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return order, np.flatnonzero(last)


def _by_text(keys: KeyArray) -> tuple[Order, Order]:
    """The order of texts: that of the characters of their comparison keys, which is that of the bytes in UTF-8."""
    cells = _cells(keys)
    if cells is None:
        folded = [comparison_key(key) for key in keys]
        order = sorted(range(len(folded)), key=folded.__getitem__)
        last = [folded[here] != folded[there] for here, there in pairwise(order)]
        return np.array(order, np.intp), np.flatnonzero([*last, True])
    places = np.argsort(cells, kind="stable")
    ordered = cells[places]
    return places, np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def _cells(keys: KeyArray) -> npt.NDArray[np.bytes_] | None:
    """The comparison keys, filled up with NUL to one width; none if that would be too wide, or if a key has a NUL."""
    blob, ends = keys.folded()
    lengths = np.diff(ends)
    width = max(int(lengths.max()), uuids.WIDTH)
    if width > _CELL or (len(blob) and not blob.all()):
        return None
    texts = ragged.padded(blob, ends[:-1], lengths, width)
    if keys.texts < len(keys):
        some, texts = texts, np.zeros((len(keys), width), np.uint8)
        plain = keys.kind != TEXT
        texts[~plain] = some
        texts[plain, : uuids.WIDTH] = uuids.spell(np.zeros(1, np.bool_), keys.hi[plain], keys.lo[plain])
    return texts.view(f"S{width}").reshape(-1)
