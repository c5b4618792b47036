"""UUIDs in their usual spelling as two 64-bit numbers, for whole columns at once.

A UUID is the commonest contact key, and 36 letters of it are 16 bytes: stored so it needs no compression, and
compared so it needs no hash. Each machine word of eight hexadecimal digits is converted by arithmetic on the
word; a spelling is accepted only if it comes out the same when it is written again.

Mixed case and everything else is not a UUID here: the exact text must come back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]

WIDTH = 36
LOWER, UPPER, OTHER = 0, 1, 2

_DIGITS = np.dtype([("a", "<u8"), ("b", "<u4"), ("c", "<u4"), ("d", "<u4"), ("e", "<u4"), ("f", "<u8")])
_SPELLED = np.dtype(
    {"names": list("abcdef"), "formats": ["<u8", "<u4", "<u4", "<u4", "<u4", "<u8"],
     "offsets": [0, 9, 14, 19, 24, 28], "itemsize": WIDTH},
)  # fmt: skip
_HYPHENS = (8, 13, 18, 23)
_HYPHEN = 0x2D

_ONES = np.uint64(0x0101010101010101)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_ABOVE = ~_NIBBLES
_ZEROS = np.uint64(0x3030303030303030)  # the digit 0 in all eight bytes
_SIX = np.uint64(0x0606060606060606)
_TO_LOWER, _TO_UPPER = np.uint64(0x27), np.uint64(0x07)  # from ':' to 'a', and from ':' to 'A'
_SPREAD = tuple(np.uint64(mask) for mask in (0x0000FFFF0000FFFF, 0x00FF00FF00FF00FF, 0x0F0F0F0F0F0F0F0F))
_STEPS = tuple(np.uint64(bits) for bits in (16, 8, 4))
_4, _6, _9, _32 = (np.uint64(number) for number in (4, 6, 9, 32))
_ALL_FOUR = 0x01010101


def parse(spelled: U8) -> tuple[U8, U64, U64]:
    """Kind, high and low half of each row of a matrix of 36 columns; numbers of the kind OTHER mean nothing."""
    n = len(spelled)
    fields = np.ascontiguousarray(spelled).reshape(-1).view(_SPELLED)
    digits = np.empty(n, _DIGITS)
    for name in "abcdef":
        digits[name] = fields[name]
    words = digits.view("<u8")
    # A letter has bit 6 set: its value is its low four bits and 9.
    values = words >> _6
    values &= _ONES
    values *= _9
    values += words & _NIBBLES
    letters = _letters(values)
    plain = values + _ZEROS
    lower = plain + letters * _TO_LOWER
    lower ^= words
    lower |= values & _ABOVE  # 'g' is written again as 'g', being sixteen
    good = (lower == 0).view(np.uint32) == _ALL_FOUR
    kind = np.where(good, np.uint8(LOWER), np.uint8(OTHER))
    if not good.all():
        upper = plain + letters * _TO_UPPER
        upper ^= words
        upper |= values & _ABOVE
        kind[~good & ((upper == 0).view(np.uint32) == _ALL_FOUR)] = UPPER
    for column in _HYPHENS:
        hyphen = spelled[:, column] == _HYPHEN
        if not hyphen.all():
            kind[~hyphen] = OTHER
    packed = values.byteswap()
    for mask, step in zip(reversed(_SPREAD), reversed(_STEPS), strict=True):
        packed &= mask
        packed |= packed >> step
    packed &= np.uint64(0xFFFFFFFF)
    quarters = packed.reshape(-1, 4)
    return kind, quarters[:, 0] << _32 | quarters[:, 1], quarters[:, 2] << _32 | quarters[:, 3]


def spell(upper: Bool, hi: U64, lo: U64) -> U8:
    """The matrix of 36 columns that `parse` reads."""
    quarters = np.empty((len(hi), 4), np.uint64)
    low = np.uint64(0xFFFFFFFF)
    quarters[:, 0], quarters[:, 1] = hi >> _32, hi & low
    quarters[:, 2], quarters[:, 3] = lo >> _32, lo & low
    values = quarters.reshape(-1)
    for mask, step in zip(_SPREAD, _STEPS, strict=True):
        values |= values << step
        values &= mask
    values = values.byteswap()
    letters = _letters(values)
    case = np.where(upper, _TO_UPPER, _TO_LOWER).repeat(4) if upper.any() else _TO_LOWER
    words = (values + _ZEROS + letters * case).view(_DIGITS)
    out = np.full((len(hi), WIDTH), _HYPHEN, np.uint8)
    fields = out.reshape(-1).view(_SPELLED)
    for name in "abcdef":
        fields[name] = words[name]
    return out


def strings(upper: Bool, hi: U64, lo: U64) -> list[str]:
    """As Python strings."""
    joined = spell(upper, hi, lo).tobytes().decode("ascii")
    return [joined[start : start + WIDTH] for start in range(0, len(joined), WIDTH)]


def _letters(values: U64) -> U64:
    """One in each byte that holds ten or more."""
    letters: U64 = values + _SIX
    letters >>= _4
    letters &= _ONES
    return letters
