"""Which contact keys a database *may* take for one row, though `comparison_key` tells them apart.

SQL Server's collations ignore characters that nobody sees, and compare without width and kana; NFC and NFD are equal
to them, and `æ` is `ae` (Microsoft, "Collation and Unicode support"). Which of it a tenant's collation does is not
known. So nothing here says that two keys are one contact, only that flagging one may unflag the other.
"""

from __future__ import annotations

import re
import unicodedata

from models.contact_keys.comparison import comparison_key

# Ranges of code points that show nothing: controls, soft hyphen, zero widths, directions, joiners, fillers, variation
# selectors, tags, byte-order mark (Unicode, Default_Ignorable_Code_Point and category Cc).
_UNSEEN = (
    *((0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160)),
    *(
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x2028, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
    ),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3)),
    *((0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
_BLANKS = (
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)
_KATAKANA = range(0x30A1, 0x30F7)
_TO_HIRAGANA = -0x60
_FOLDS = {code: code + _TO_HIRAGANA for code in _KATAKANA} | {
    ord("æ"): "ae",
    ord("œ"): "oe",
    ord("þ"): "th",
    ord("ı"): "i",  # noqa: RUF001 - that very letter
}


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)


_IGNORED = re.compile(f"[{_class(_UNSEEN)}]")
UNSEEN_RANGES = _UNSEEN + _BLANKS
INVISIBLE = re.compile(f"[{_class(UNSEEN_RANGES)}]")
"""A character that nobody sees, or a blank that is no U+0020."""


def compatibility_key(key: str) -> str:
    """The text that stands for every spelling a collation may take for the same key."""
    text = unicodedata.normalize("NFKC", _IGNORED.sub("", key)).casefold()
    return comparison_key(unicodedata.normalize("NFKC", _IGNORED.sub("", text)).translate(_FOLDS))


def invisible_at(text: str) -> int | None:
    """Where the first character that nobody sees stands, counted from one; none if every one is seen."""
    unseen = (at for at, sign in enumerate(text, 1) if not sign.isprintable() or INVISIBLE.match(sign))
    return next(unseen, None)
