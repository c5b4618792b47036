"""Folding acknowledged batches into a new generation of member chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.codec import decode, encode_keys
from worker.diff import Direction
from worker.keys import comparison_key

PART = 250_000


def compaction_due(base_n: int, delta_n: int, batches: int) -> bool:
    """Whether folding is worth a rewrite of the base."""
    return batches >= 200 or delta_n * 10 >= max(base_n, 10_000)


def compact(
    chunks: Iterable[bytes],
    deltas: Iterable[tuple[Direction, bytes]],
    *,
    part_size: int = PART,
    workdir: Path,
) -> Iterator[tuple[int, bytes]]:
    """The parts (n, blob) of the new generation, sorted by comparison key."""
    known: dict[str, str] = {}
    for blob in chunks:
        known.update((comparison_key(key), key) for key in decode(blob))
    for direction, blob in deltas:
        for key in decode(blob):
            if direction == Direction.ENTER:
                known[comparison_key(key)] = key
            else:
                known.pop(comparison_key(key), None)
    keys = [known[key] for key in sorted(known)]
    for start in range(0, len(keys), part_size):
        part = keys[start : start + part_size]
        yield len(part), encode_keys(part)


def lookup(chunks: Iterable[bytes], deltas: Iterable[tuple[Direction, bytes]], key: str) -> str | None:
    """The text by which the state knows this key, or None."""
    wanted = comparison_key(key)
    found: str | None = None
    for blob in chunks:
        for text in decode(blob):
            if comparison_key(text) == wanted:
                found = text
    for direction, blob in deltas:
        for text in decode(blob):
            if comparison_key(text) == wanted:
                found = text if direction == Direction.ENTER else None
    return found


def contains(chunks: Iterable[bytes], deltas: Iterable[tuple[Direction, bytes]], key: str) -> bool:
    """Whether the state has this key as a member."""
    return lookup(chunks, deltas, key) is not None
