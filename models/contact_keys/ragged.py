"""Pieces of different length in one buffer, handled for all of them at once.

numpy has no type for this; these few functions are what the diff needs of it. They know bytes and offsets, and
must not know what a key or a row is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_GROUPED = 256
"""Pieces up to this length are copied in groups of one length; longer ones byte by byte."""

_SPACE, _DELETE = 0x20, 0x7F


def is_ascii(blob: U8) -> bool:
    """Whether every byte is one of ASCII."""
    return int(blob.max(initial=0)) < 0x80  # noqa: PLR2004


def is_plain(blob: U8) -> bool:
    """Whether every byte is a letter, a digit, a sign or a space of ASCII."""
    return int(blob.min(initial=_SPACE)) >= _SPACE and int(blob.max(initial=0)) < _DELETE


def windows(blob: U8, width: int) -> npt.NDArray[np.void]:
    """A view of every run of `width` bytes, by its first byte."""
    count = max(len(blob) - width + 1, 0)
    return np.ndarray((count,), f"V{width}", buffer=blob, strides=(1,)) if count else np.zeros(0, f"V{width}")


def rows(blob: U8, starts: I64, width: int) -> U8:
    """Pieces of one length, as a matrix."""
    if (
        len(starts)
        and int(starts[-1] - starts[0]) == width * (len(starts) - 1)
        and (np.diff(starts) == width).all()
    ):
        return blob[starts[0] : starts[-1] + width].reshape(-1, width)  # they stand side by side already
    return windows(blob, width)[starts].view(np.uint8).reshape(-1, width)


def padded(blob: U8, starts: I64, lengths: I64, width: int) -> U8:
    """Pieces of up to `width` bytes as a matrix, filled up with zeros."""
    filled = np.concatenate([blob, np.zeros(width, np.uint8)])
    matrix = windows(filled, width)[starts].view(np.uint8).reshape(-1, width)
    matrix *= np.arange(width) < lengths[:, None]
    return matrix


def gather(blob: U8, starts: I64, lengths: I64) -> U8:
    """The pieces, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    if not total:
        return np.zeros(0, np.uint8)
    if (starts[1:] == starts[:-1] + lengths[:-1]).all():
        return blob[starts[0] : starts[0] + total]
    out = np.empty(total, np.uint8)
    targets = ends - lengths
    # Measured on 50,000 pieces of 15 to 40 bytes: 17 ns a piece in groups, 180 ns byte by byte.
    short = np.minimum(lengths, _GROUPED + 1).astype(np.uint16)
    order = np.argsort(short, kind="stable")
    counts = np.bincount(short, minlength=_GROUPED + 2)
    position = int(counts[0])
    for width in (np.flatnonzero(counts[1 : _GROUPED + 1]) + 1).tolist():
        group = order[position : position + counts[width]]
        windows(out, width)[targets[group]] = windows(blob, width)[starts[group]]
        position += int(counts[width])
    for piece in order[position:].tolist():
        target, start, length = int(targets[piece]), int(starts[piece]), int(lengths[piece])
        out[target : target + length] = blob[start : start + length]
    return out


def trim_spaces(blob: U8, starts: I64, lengths: I64) -> I64:
    """The lengths without trailing U+0020; the very same array when there are none."""
    if int(blob.min(initial=_DELETE)) > _SPACE:
        return lengths
    trimmed = lengths
    while True:
        filled = np.flatnonzero(trimmed > 0)
        spaced = filled[blob[starts[filled] + trimmed[filled] - 1] == _SPACE]
        if not len(spaced):
            return trimmed
        if trimmed is lengths:
            trimmed = lengths.copy()
        for piece in spaced.tolist() if len(spaced) < 32 else ():  # noqa: PLR2004 - few: each to its end at once
            text = blob[starts[piece] : starts[piece] + trimmed[piece]].tobytes()
            trimmed[piece] = len(text.rstrip(b" "))
        if len(spaced) >= 32:  # noqa: PLR2004
            trimmed[spaced] -= 1


def utf16_lengths(blob: U8, ends: I64) -> I64:
    """UTF-16 code units of each piece of valid UTF-8: two for a character outside the basic plane."""
    if is_ascii(blob):
        return np.diff(ends)
    # A continuation byte (0b10……) counts nothing, a four-byte lead (0b11110…) two, any other byte one.
    units = ((blob & 0xC0) != 0x80).astype(np.int64) + (blob >= 0xF0)  # noqa: PLR2004
    running = np.zeros(len(blob) + 1, np.int64)
    np.cumsum(units, out=running[1:])
    counted: I64 = np.diff(running[ends])
    return counted
