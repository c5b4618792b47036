"""What changed: a snapshot against the state Marketing Cloud has acknowledged."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from worker import csv_exact
from worker.codec import decode, encode_keys
from worker.keys import comparison_key, is_blank
from worker.snapshot_file import digest_of  # noqa: F401
from worker.snapshot_file import inspect


class Direction(enum.StrEnum):
    """Which way a member went; the value is what the database holds."""

    ENTER = "enter"
    EXIT = "exit"


@dataclass(frozen=True)
class StateReader:
    """What Marketing Cloud has acknowledged; each callable reads anew from the start.

    `uncertain` are blobs of pushes whose outcome is unknown.
    """

    chunks: Callable[[], Iterator[bytes]]
    deltas: Callable[[], Iterator[tuple[Direction, bytes]]]
    uncertain: Callable[[], Iterator[bytes]]
    members: int


@dataclass(frozen=True)
class DiffCounts:
    """Rows of the file, distinct members in it, what was left out, and what is to be done.

    snapshot_rows = members + blank + duplicate; members = entered + unchanged.
    `state_members` is the number of members of the state before.
    """

    snapshot_rows: int
    members: int
    blank: int
    duplicate: int
    entered: int
    exited: int
    unchanged: int
    state_members: int


@dataclass(frozen=True)
class PlannedBatch:
    """One request to come: `keys` is a blob of the codec."""

    direction: Direction
    n: int
    keys: bytes


class Diff:
    """The outcome."""

    def __init__(
        self, counts: DiffCounts, digest: str, longest: int, entered: list[str], exited: list[str]
    ) -> None:
        self.counts = counts
        self.digest = digest
        self.longest_key = longest
        self._changes = {Direction.ENTER: entered, Direction.EXIT: exited}

    def sample(self, direction: Direction, n: int) -> list[str]:
        """Up to n keys of that direction, as they are to be pushed."""
        return self._changes[direction][:n]

    def batches(
        self, *, row_overhead: int, max_rows: int = 25_000, max_bytes: int = 4_500_000
    ) -> Iterator[PlannedBatch]:
        """The requests to make, exits first."""
        for direction in (Direction.EXIT, Direction.ENTER):
            batch: list[str] = []
            size = 12
            for key in self._changes[direction]:
                cost = len(orjson.dumps(key)) - 2 + row_overhead
                if batch and (len(batch) == max_rows or size + cost > max_bytes):
                    yield PlannedBatch(direction, len(batch), encode_keys(batch))
                    batch, size = [], 12
                batch.append(key)
                size += cost
            if batch:
                yield PlannedBatch(direction, len(batch), encode_keys(batch))


def compare(
    snapshot: Path, column: str, state: StateReader, *, workdir: Path, seed: int, max_bytes: int
) -> Diff:
    """Read everything once and decide; nothing is planned unless the whole file is good."""
    known: dict[str, str] = {}
    for blob in state.chunks():
        known.update((comparison_key(key), key) for key in decode(blob))
    for direction, blob in state.deltas():
        for key in decode(blob):
            if direction == Direction.ENTER:
                known[comparison_key(key)] = key
            else:
                known.pop(comparison_key(key), None)
    unsure = {comparison_key(key): key for blob in state.uncertain() for key in decode(blob)}
    file = inspect(snapshot, column, max_bytes=max_bytes, workdir=workdir)
    rows = blank = longest = 0
    seen: dict[str, str] = {}
    for cells in csv_exact.read(file):
        rows += len(cells)
        for cell in cells:
            if is_blank(cell):
                blank += 1
            else:
                longest = max(longest, len(cell.encode("utf-16-le")) // 2)
                seen.setdefault(comparison_key(cell), cell)
    entered = [cell for key, cell in seen.items() if key not in known or key in unsure]
    exited = [known.get(key, unsure.get(key, "")) for key in {**known, **unsure} if key not in seen]
    counts = DiffCounts(
        snapshot_rows=rows, members=len(seen), blank=blank, duplicate=rows - blank - len(seen),
        entered=len(entered), exited=len(exited), unchanged=len(seen) - len(entered), state_members=len(known),
    )  # fmt: skip
    return Diff(counts, file.digest, longest, entered, exited)
