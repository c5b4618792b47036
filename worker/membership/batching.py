"""Changes cut into requests: as many rows as fit, counted as the JSON that will carry them.

Pure: arrays in, blobs out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from models.contact_keys import codec
from models.contact_keys.key_array import I64, TEXT, KeyArray
from models.contact_keys.uuids import WIDTH

WRAPPER = len(b'{"items":[]}')

# What JSON adds to a character, as orjson writes it: one byte for \" \\ \b \t \n \f \r, five for \u00XX.
_ESCAPE = np.zeros(256, np.int64)
_ESCAPE[:32] = 5
_ESCAPE[[8, 9, 10, 12, 13, 34, 92]] = 1


def batches(
    changes: Iterable[KeyArray], *, row_overhead: int, max_rows: int, max_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Number of rows and key blob of each request; a key too long for any request gets one of its own."""
    waiting: list[KeyArray] = []
    held = 0
    room = max_bytes - WRAPPER
    for keys in changes:
        waiting.append(keys)
        held += len(keys)
        if held < max_rows:
            continue
        joined = KeyArray.concat(waiting)
        stops = _cuts(json_sizes(joined) + row_overhead, max_rows, room)
        start = 0
        for stop in stops[:-1]:  # the last one may have room for more
            yield stop - start, codec.encode(joined.slice(start, stop))
            start = stop
        waiting, held = [joined.slice(start, len(joined))], len(joined) - start
    if held:
        joined = KeyArray.concat(waiting)
        start = 0
        for stop in _cuts(json_sizes(joined) + row_overhead, max_rows, room):
            yield stop - start, codec.encode(joined.slice(start, stop))
            start = stop


def json_sizes(keys: KeyArray) -> I64:
    """Bytes of each key between its quotes in JSON."""
    sizes = np.full(len(keys), WIDTH, np.int64)
    if keys.texts:
        lengths = np.diff(keys.ends)
        extra = _ESCAPE[keys.text]
        if extra.any():
            running = np.zeros(len(extra) + 1, np.int64)
            np.cumsum(extra, out=running[1:])
            lengths = lengths + np.diff(running[keys.ends])
        sizes[keys.kind == TEXT] = lengths
    return sizes


def _cuts(sizes: I64, max_rows: int, room: int) -> list[int]:
    """Where each request ends."""
    running = np.cumsum(sizes)
    stops: list[int] = []
    start = 0
    while start < len(sizes):
        done = int(running[start - 1]) if start else 0
        fit = int(np.searchsorted(running, done + room, side="right"))
        start = max(min(fit, start + max_rows), start + 1)
        stops.append(start)
    return stops
