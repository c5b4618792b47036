"""Many contact keys at once, as numpy columns: what the codec, the diff and the compaction work on.

A key that is a UUID in its usual spelling (8-4-4-4-12, all lower or all upper case) is held as its 128 bits, any
other key as its UTF-8 text. The split is about storage only: `folded` and `fingerprints` see one world, so that
`550E8400-…`, `550e8400-…` and `550e8400-… ` (a text, because of the space) are one contact.

Nothing here may decide equality by itself (that is `keys.comparison_key`), read a file or know a vendor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.contact_keys import ragged, uuids
from models.contact_keys.comparison import comparison_key

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

LOWER, UPPER, TEXT = 0, 1, 2
"""The kinds: a UUID in lower case, one in upper case, and any other text."""

_PIECE = 1 << 15
"""UUIDs parsed at once. Smaller pieces fit the cache better, but two threads then wait for the interpreter lock."""

_EMPTY64: U64 = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True)
class KeyArray:
    """`kind`, `hi` and `lo` have one entry a key; `text` and `ends` hold the keys of kind TEXT, in order.

    `hi` and `lo` of a text are zero. The n-th text is `text[ends[n]:ends[n + 1]]`.
    """

    kind: U8
    hi: U64
    lo: U64
    text: U8
    ends: I64

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def texts(self) -> int:
        """How many keys are of kind TEXT."""
        return len(self.ends) - 1

    @classmethod
    def empty(cls) -> KeyArray:
        """No key."""
        return cls(np.zeros(0, np.uint8), _EMPTY64, _EMPTY64, np.zeros(0, np.uint8), np.zeros(1, np.int64))

    @classmethod
    def of_uuids(cls, kind: U8, hi: U64, lo: U64) -> KeyArray:
        """From columns of keys that are all UUIDs."""
        return cls(kind, hi, lo, np.zeros(0, np.uint8), np.zeros(1, np.int64))

    @classmethod
    def of(cls, keys: Sequence[str]) -> KeyArray:
        """From Python strings; a lone surrogate is not text and raises UnicodeEncodeError."""
        joined = "".join(keys)
        if joined.isascii():
            lengths = np.fromiter(map(len, keys), np.int64, len(keys))
            blob = joined.encode("ascii")
        else:
            cells = [key.encode() for key in keys]
            lengths = np.fromiter(map(len, cells), np.int64, len(cells))
            blob = b"".join(cells)
        return cls.of_cells(np.frombuffer(blob, np.uint8), np.cumsum(lengths) - lengths, lengths)

    @classmethod
    def of_cells(cls, blob: U8, starts: I64, lengths: I64) -> KeyArray:
        """From pieces of a buffer of valid UTF-8."""
        n = len(starts)
        if not n:
            return cls.empty()
        kind = np.full(n, TEXT, np.uint8)
        hi, lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        where = np.flatnonzero(lengths == uuids.WIDTH)
        for first in range(0, len(where), _PIECE):
            piece = where[first : first + _PIECE]
            rows = piece if len(where) < n else slice(first, first + _PIECE)
            kind[rows], hi[rows], lo[rows] = uuids.parse(ragged.rows(blob, starts[piece], uuids.WIDTH))
        texts = np.flatnonzero(kind == TEXT)
        if not len(texts):
            return cls(kind, hi, lo, np.zeros(0, np.uint8), np.zeros(1, np.int64))
        if len(texts) < n:
            starts, lengths = starts[texts], lengths[texts]
        hi[texts] = lo[texts] = 0
        return cls(kind, hi, lo, ragged.gather(blob, starts, lengths), _ends(lengths))

    @classmethod
    def concat(cls, parts: Iterable[KeyArray]) -> KeyArray:
        """One after the other."""
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:  # noqa: PLR2004 - nothing to join
            return parts[0] if parts else cls.empty()
        return cls(
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.hi for part in parts]),
            np.concatenate([part.lo for part in parts]),
            np.concatenate([part.text for part in parts]),
            _ends(np.concatenate([np.diff(part.ends) for part in parts])),
        )

    def take(self, rows: npt.NDArray[np.intp]) -> KeyArray:
        """The keys of these rows, in the order given."""
        kind = self.kind[rows]
        hi, lo = self.hi[rows], self.lo[rows]
        if not self.texts:
            return KeyArray(kind, hi, lo, self.text, self.ends)
        number = np.cumsum(self.kind == TEXT) - 1
        texts = number[rows[kind == TEXT]]
        starts = self.ends[texts]
        lengths = self.ends[texts + 1] - starts
        return KeyArray(kind, hi, lo, ragged.gather(self.text, starts, lengths), _ends(lengths))

    def slice(self, start: int, stop: int) -> KeyArray:
        """The keys from `start` up to `stop`, without copying."""
        first, last = 0, 0
        if self.texts:
            first = int(np.count_nonzero(self.kind[:start] == TEXT))
            last = first + int(np.count_nonzero(self.kind[start:stop] == TEXT))
        ends = self.ends[first : last + 1]
        return KeyArray(
            self.kind[start:stop],
            self.hi[start:stop],
            self.lo[start:stop],
            self.text[ends[0] : ends[-1]],
            ends - ends[0],
        )

    def only_texts(self) -> KeyArray:
        """The texts alone; the same buffers."""
        zeros = np.zeros(self.texts, np.uint64)
        return KeyArray(np.full(self.texts, TEXT, np.uint8), zeros, zeros, self.text, self.ends)

    def to_list(self) -> list[str]:
        """As Python strings."""
        return list(self)

    def __iter__(self) -> Iterator[str]:
        if not self.texts:
            return iter(uuids.strings(self.kind == UPPER, self.hi, self.lo))
        texts = self._text_list()
        if self.texts == len(self):
            return iter(texts)
        return self._mixed(texts)

    def _mixed(self, texts: list[str]) -> Iterator[str]:
        plain = self.kind != TEXT
        spelled = iter(uuids.strings((self.kind == UPPER)[plain], self.hi[plain], self.lo[plain]))
        rest = iter(texts)
        for kind in self.kind.tolist():
            yield next(rest) if kind == TEXT else next(spelled)

    def _text_list(self) -> list[str]:
        blob = self.text.tobytes()
        ends = self.ends.tolist()
        if blob.isascii():
            joined = blob.decode("ascii")
            return [joined[start:stop] for start, stop in pairwise(ends)]
        return [blob[start:stop].decode() for start, stop in pairwise(ends)]

    def folded(self) -> tuple[U8, I64]:
        """The comparison keys of the texts alone, as a buffer and its ends."""
        if not ragged.is_ascii(self.text):
            keys = [comparison_key(key).encode() for key in self._text_list()]
            lengths = np.fromiter(map(len, keys), np.int64, len(keys))
            return np.frombuffer(b"".join(keys), np.uint8), _ends(lengths)
        # For ASCII, case folding is lower(): the tests compare both for every character.
        capital = (self.text - np.uint8(ord("A"))) <= ord("Z") - ord("A")
        lowered = self.text | (capital.view(np.uint8) << np.uint8(5))
        starts, lengths = self.ends[:-1], np.diff(self.ends)
        trimmed = ragged.trim_spaces(lowered, starts, lengths)
        if trimmed is lengths:
            return lowered, self.ends
        return ragged.gather(lowered, starts, trimmed), _ends(trimmed)

    def utf16_lengths(self) -> I64:
        """Characters as an nvarchar counts them, for every key."""
        lengths = np.full(len(self), uuids.WIDTH, np.int64)
        if self.texts:
            lengths[self.kind == TEXT] = ragged.utf16_lengths(self.text, self.ends)
        return lengths


def _ends(lengths: I64) -> I64:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends
