"""A vendor's own words, made fit to be stored and shown: no control characters, and nobody's contact key. Pure.

A reason may quote the row's key in any spelling (another case, escaped, percent-encoded) or somebody else's. So what
may be a key is found by its shape: whatever stands in quotes or brackets, and every word that is not an ordinary one.
"""

from __future__ import annotations

import re
import unicodedata

MASK = "…"
MESSAGE_MAX = 300
CODE_MAX = 60
NAME_MAX = 200
NO_CODE = "UNKNOWN"

_CLOSING = {
    "'": "'",
    '"': '"',
    "`": "`",
    "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}",
    "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}",
    "\N{DOUBLE LOW-9 QUOTATION MARK}": "\N{LEFT DOUBLE QUOTATION MARK}",
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}",
}
_BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_ENDING = ".,;:!?"
_CODE = re.compile(r"-?[A-Za-z0-9]+(?:[_.][A-Za-z0-9]+)*", re.ASCII)
# An ordinary word of the vendor's language.
_WORD = re.compile(r"[a-z]{1,16}(?:'[a-z]{1,2})?", re.ASCII)
# Words with capitals that are no names.
_VENDORS_WORDS = """
API Boolean Contact Custom Data DataExtensionObject Date Decimal EmailAddress Extension ID JSON KEY Locale Marketing
Cloud NULL Number Object PRIMARY Phone Process SQL Server Text UNIQUE
"""
_VENDORS = frozenset(_VENDORS_WORDS.split())
# After these an unquoted value may follow; after "is" where one of them stands before it.
_BEFORE_VALUE = frozenset({"value", "values", "key", "keys", "for", "contact", "user", "subscriber", "email"})
# Words that are shown wherever they stand, also at the beginning, where a name would have a capital.
_SAFE_WORDS = """
a an and or the this that than any all each another it its their of on in for into to from by with without under as at
if is are was were be been being can cannot could does may must has have will not no longer lost too both but because
before after already also unknown valid invalid missing empty existing required maximum duplicate unique defined
key keys primary contact subscriber user property properties value values field fields column columns row rows record
records object objects data extension length type address constraint violation database server transaction statement
lock locked deadlock deadlocked process resources victim batch request time timeout error errors exceed exceeds
exceeded exist exists found like locate select selected chosen rerun failed rejected refused saved insert inserted
update updated upsert terminated unable unexpected internal please again later
"""
_SAFE = frozenset(_SAFE_WORDS.split())


def storable(text: str) -> str:
    """The text without what PostgreSQL or UTF-8 has no place for: NUL, and half a surrogate pair."""
    return _UNSTORABLE.sub("\ufffd", text)


def code(value: object) -> str:
    """A vendor's code in at most 60 letters, digits, dots and underlines; what is no such code is UNKNOWN."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text[:CODE_MAX] if _CODE.fullmatch(text) else NO_CODE


def name(text: str) -> str | None:
    """What a vendor's people call a thing, on one line of at most 200 characters; none for an empty name."""
    plain = "".join(sign if sign.isprintable() else " " for sign in storable(text[: 20 * NAME_MAX]))
    return " ".join(plain.split())[:NAME_MAX].rstrip() or None


def masked(text: str, *own: str) -> str:
    """The text, at most 300 characters of it, without anything that may be a contact key. `own` are keys known."""
    text = " ".join("".join(" " if _unfit(sign) else sign for sign in text).split())[: 20 * MESSAGE_MAX]
    for key in own:
        text = _without(text, " ".join(key.split()))
    text = _without_quoted(text)
    words = text.split()
    shown = [_shown(word, words[max(0, at - 2) : at]) for at, word in enumerate(words)]
    return re.sub(rf"{MASK}(?:\s*{MASK})+", MASK, " ".join(shown))[:MESSAGE_MAX]


def _unfit(sign: str) -> bool:
    return unicodedata.category(sign) in {"Cc", "Cs", "Zl", "Zp"}


def _without(text: str, key: str) -> str:
    """Without a key that stands there as a word of its own, in any case."""
    if not key:
        return text
    return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", MASK, text, flags=re.IGNORECASE)


def _without_quoted(text: str) -> str:
    """What stands in quotes or brackets is one mask, the quotes stay; one that does not end masks all that follows."""
    out, at = [], 0
    while at < len(text):
        sign = text[at]
        if sign in _BRACKETS:
            end = _bracket_end(text, at)
        elif sign in _CLOSING and (at == 0 or not text[at - 1].isalnum()):
            end = _quote_end(text, at)
        else:
            out.append(sign)
            at += 1
            continue
        if end < 0:
            out.append(sign + MASK)
            break
        out.append(f"{sign}{MASK}{text[end]}")
        at = end + 1
    return "".join(out)


def _bracket_end(text: str, start: int) -> int:
    opening, closing, depth = text[start], _BRACKETS[text[start]], 0
    for at in range(start, len(text)):
        depth += (text[at] == opening) - (text[at] == closing)
        if not depth and (at + 1 == len(text) or not text[at + 1].isalnum()):
            return at
        depth = max(depth, 1)
    return -1


def _quote_end(text: str, start: int) -> int:
    closing = _CLOSING[text[start]]
    for at in range(start + 1, len(text)):
        followed = at + 1 < len(text) and (text[at + 1].isalnum() or text[at + 1] in "@%_+-")
        if text[at] == closing and not followed and text[at - 1] != "\\":
            return at
    return -1


def _shown(word: str, before: list[str]) -> str:
    """A word as it is shown, after the two words before it: itself, or a mask with the punctuation that ended it."""
    bare = word.rstrip(_ENDING)
    tail = word[len(bare) :]
    if re.fullmatch(rf"\W*{MASK}?\W*", bare):
        return word
    if bare in _VENDORS or ((bare.islower() or bare.istitle()) and bare.lower() in _SAFE):
        return word
    begins = not before or before[-1][-1] in ".!?:;="
    said = [part.strip(_ENDING).lower() for part in before]
    valued = bool(said) and said[-1] in _BEFORE_VALUE
    valued |= len(said) > 1 and said[-1] in {"is", "was"} and said[-2] in _BEFORE_VALUE
    return MASK + tail if begins or valued or not _WORD.fullmatch(bare) or not bare.islower() else word
