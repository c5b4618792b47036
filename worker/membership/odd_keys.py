"""Keys that no person has: placeholders, a header again, a quotation mark, characters that nobody sees.

Such a key is pushed like any other, for who knows; but it is counted and shown, and many of them hold a run. Texts are
looked at two bytes at a time for all rows at once, and only suspects one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.contact_keys import ragged
from models.contact_keys.compatibility import INVISIBLE, UNSEEN_RANGES
from models.contact_keys.key_array import I64, TEXT, U8, Bool, KeyArray

SAMPLES = 3
PLACEHOLDERS = frozenset(
    """
    null|(null)|<null>|[null]|none|(none)|<none>|[none]|nil|(nil)|undefined|(undefined)|<undefined>|[undefined]
    n/a|(n/a)|<n/a>|#n/a|na|n.a.|nan|#null!|#ref!|#value!|#name?|#div/0!|\\n|-|--|---|?|??|???|.
    unknown|(unknown)|<unknown>|unset|(unset)|(not set)|<not set>|not set|not provided|(empty)|<empty>|empty
    (blank)|<blank>|missing|anonymous|{}|[]|[object object]
    """.replace("\n", "|").replace(" |", "|").replace("|    ", "|").split("|")
) - {"", " "}  # fmt: skip
_NIL_UUID = "00000000-0000-0000-0000-000000000000"
_SPACE, _QUOTE, _DELETE = 0x20, 0x22, 0x7F
_FIRST = 0x80  # of the bytes that are no ASCII
_THREE_BYTES = 0x800  # the first code point of three


def _leads() -> Bool:
    """The first two bytes, in UTF-8, of the characters that nobody sees."""
    table = np.zeros(1 << 16, np.bool_)
    for first, last in UNSEEN_RANGES:
        for code in {last, *range(first, last + 1, 1 if first < _THREE_BYTES else 1 << 6)}:
            encoded = chr(code).encode()
            if len(encoded) > 1:
                table[encoded[0] << 8 | encoded[1]] = True
    return table


_LEADS = _leads()


@dataclass(frozen=True, slots=True)
class OddKeys:
    """How many rows have an odd key, and the first few of them as (what is odd, key)."""

    rows: int = 0
    samples: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: OddKeys) -> OddKeys:
        return OddKeys(self.rows + other.rows, (self.samples + other.samples)[:SAMPLES])


def oddity(key: str, names: frozenset[str]) -> str | None:
    """What is odd about a key; none if nothing is. `names` are the column's, in lower case."""
    text = key.rstrip(" ").encode().lower().decode()
    if text in PLACEHOLDERS or key == _NIL_UUID:
        return "a placeholder"
    if text in names:
        return "the header again"
    if '"' in key:
        return "a quotation mark"
    if key.startswith(" ") or INVISIBLE.search(key):
        return "characters that nobody sees"
    return None


def find(keys: KeyArray, names: frozenset[str]) -> OddKeys:
    """The odd keys of an array: those that `oddity` names."""
    nil = np.flatnonzero((keys.kind != TEXT) & (keys.hi == 0) & (keys.lo == 0))
    samples = [_NIL_UUID] * min(len(nil), SAMPLES)
    rows = np.zeros(0, np.int64)
    if keys.texts and len(keys.text):
        suspects = _unseen(keys.text, keys.ends)
        suspects[_suspects(keys.text, keys.ends, PLACEHOLDERS | names)] = True
        rows = np.array(
            [row for row in np.flatnonzero(suspects).tolist() if oddity(_text(keys, row), names)], np.int64
        )
        samples += [_text(keys, row) for row in rows[:SAMPLES].tolist()]
    return OddKeys(len(nil) + len(rows), tuple((oddity(key, names) or "", key) for key in samples[:SAMPLES]))


def _text(keys: KeyArray, row: int) -> str:
    return keys.text[keys.ends[row] : keys.ends[row + 1]].tobytes().decode()


def _suspects(text: U8, ends: I64, words: frozenset[str]) -> I64:
    """The rows that begin with the first two bytes of one of the words, and are no longer than the longest.

    Spaces behind a text don't count, and one beyond ASCII may be longer than it is in lower case.
    """
    lengths = ragged.trim_spaces(text, ends[:-1], np.diff(ends))
    longest = max(len(word.encode()) for word in words) * (1 if ragged.is_ascii(text) else 3)
    short = np.flatnonzero((lengths > 0) & (lengths <= longest))
    pairs = np.zeros(1 << 16, np.bool_)
    for word in words:
        first, second = (word.encode() + b" ")[:2]
        for head in (first, ord(chr(first).upper())):
            for tail in (second, ord(chr(second).upper())) if second < _FIRST else (second,):
                pairs[head << 8 | tail] = True
    heads = text[ends[short]].astype(np.uint16) << 8
    heads |= np.where(lengths[short] > 1, text[np.minimum(ends[short] + 1, len(text) - 1)], _SPACE)
    found: I64 = short[pairs[heads]]
    return found


def _unseen(text: U8, ends: I64) -> Bool:
    """The rows that may have a quotation mark, a character that nobody sees, or a space in front."""
    odd: Bool = np.zeros(len(ends) - 1, np.bool_)
    if int(text.min()) > _QUOTE and ragged.is_plain(text):  # as a rule
        return odd
    filled = np.flatnonzero(np.diff(ends))
    odd[filled] = text[ends[filled]] == _SPACE
    strange = text == _QUOTE
    if not ragged.is_plain(text):
        strange |= (text < _SPACE) | (text == _DELETE)
    odd[np.searchsorted(ends, np.flatnonzero(strange), side="right") - 1] = True
    if not ragged.is_ascii(text):
        lead = np.flatnonzero(text[:-1] >= _FIRST)
        lead = lead[_LEADS[text[lead].astype(np.uint16) << 8 | text[lead + 1]]]
        odd[np.searchsorted(ends, lead, side="right") - 1] = True
    return odd
