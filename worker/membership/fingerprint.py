"""128 bits that stand for a contact while one diff lasts.

A UUID is its own 128 bits: exact. Any other comparison key is hashed by four independent multilinear functions
of 32 bits each, whose numbers come from the run's seed. For two different keys of up to LONG bytes the chance
to be taken for one is 2^-128 whatever the keys are, over the choice of the seed (Lemire and Kaser, "Strongly
universal string hashing is fast", 2014); among 20,000,000 keys on either side it is below 2^-78. Longer keys go
through keyed BLAKE2b. Another run has another seed, so even a miss could not last.

A fingerprint must never be stored: it means nothing under another seed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from models.contact_keys import ragged, uuids
from models.contact_keys.key_array import I64, TEXT, U8, U64, KeyArray

LONG = 512
_PIECE = 1 << 15  # with smaller ones two threads wait for the interpreter lock
_LANES = 4
_BLOCK = 32  # bytes of a text that are gathered at once: eight alone would take as long
_MOST = 0.7  # with so many rows left a word is added to all: cheaper than to the chosen ones
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(8)] + [2**64 - 1], np.uint64)


class Fingerprints:
    """The function of one run."""

    def __init__(self, seed: int) -> None:
        words = LONG // 8 + 1  # and one for the length
        stream = hashlib.shake_256(b"cohort-sync" + str(seed).encode()).digest(
            8 * (2 * _LANES * words + _LANES + 2)
        )
        numbers = np.frombuffer(stream, "<u8").astype(np.uint64)
        self._key = stream[:32]
        self._first = numbers[:_LANES]
        self._odd = numbers[_LANES : _LANES + 2] | np.uint64(1)
        self._numbers = numbers[_LANES + 2 :].reshape(words, _LANES, 2)
        self._of_zeros = self._numbers[:, :, 0] * self._numbers[:, :, 1]

    def of(self, keys: KeyArray) -> tuple[U64, U64]:
        """High and low half for every key; equal for two keys that are one contact."""
        if not keys.texts:
            return keys.hi, keys.lo
        blob, ends = keys.folded()
        high, low = self._of_texts(blob, ends)
        if keys.texts == len(keys):
            return high, low
        hi, lo = keys.hi.copy(), keys.lo.copy()
        texts = keys.kind == TEXT
        hi[texts], lo[texts] = high, low
        return hi, lo

    def mix(self, hi: U64, lo: U64) -> U64:
        """64 bits whose upper ones are spread evenly whatever the fingerprints look like."""
        mixed: U64 = hi * self._odd[0]
        mixed += lo * self._odd[1]
        mixed ^= mixed >> _32
        mixed *= self._odd[0]
        return mixed

    def _of_texts(self, blob: U8, ends: I64) -> tuple[U64, U64]:
        lengths = np.diff(ends)
        windows = ragged.windows(np.concatenate([blob, np.zeros(_BLOCK, np.uint8)]), _BLOCK)
        high, low = np.empty(len(lengths), np.uint64), np.empty(len(lengths), np.uint64)
        for first in range(0, len(lengths), _PIECE):
            piece = slice(first, first + _PIECE)
            lanes = self._hash(windows, ends[:-1][piece], lengths[piece])
            high[piece] = lanes[0] & ~_LOW | lanes[1] >> _32
            low[piece] = lanes[2] & ~_LOW | lanes[3] >> _32
        for row in np.flatnonzero(lengths > LONG).tolist():
            text = blob[ends[row] : ends[row + 1]].tobytes()
            digest = hashlib.blake2b(text, digest_size=16, key=self._key).digest()
            high[row] = int.from_bytes(digest[:8], "big")
            low[row] = int.from_bytes(digest[8:], "big")
        # A UUID in mixed case or with trailing spaces is a text, and the same contact as the plain one.
        where = np.flatnonzero(lengths == uuids.WIDTH)
        if len(where):
            kind, hi, lo = uuids.parse(ragged.rows(blob, ends[where], uuids.WIDTH))
            found = kind == uuids.LOWER
            high[where[found]], low[where[found]] = hi[found], lo[found]
        return high, low

    def _hash(self, windows: npt.NDArray[np.void], starts: I64, lengths: I64) -> list[U64]:
        """Each lane's sum over a text's words. A word of zeros adds nothing: so a text is like itself, filled up."""
        size = np.minimum(lengths, LONG).astype(np.uint64)
        key = self._numbers[-1]
        lanes = [self._first[lane] + (key[lane, 0] + size) * key[lane, 1] for lane in range(_LANES)]
        at, left = starts, np.where(lengths > LONG, 0, lengths)
        rows: slice | I64 = slice(None)  # those that may have a further word
        for start in range(0, LONG, _BLOCK):
            more = np.flatnonzero(left > 0)
            if not len(more):
                break
            if len(more) < len(left) * _MOST:
                rows = more if isinstance(rows, slice) else rows[more]
                at, left = at[more], left[more]
            words = windows[np.minimum(at + start, len(windows) - 1)].view("<u8").reshape(-1, _BLOCK // 8)
            for word, value in enumerate(words.T[: -(-int(left.max()) // 8)], start // 8):
                self._add(lanes, rows, word, value & _MASKS[np.clip(left, 0, 8)])
                left = left - 8
        return lanes

    def _add(self, lanes: list[U64], rows: slice | I64, word: int, value: U64) -> None:
        first, second = value & _LOW, value >> _32
        key, of_zeros = self._numbers[word], self._of_zeros[word]
        for lane in range(_LANES):
            product = first + key[lane, 0]
            product *= second + key[lane, 1]
            product -= of_zeros[lane]
            lanes[lane][rows] += product
