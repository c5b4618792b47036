"""Values that nobody expects, for every door; and how something that is right is made a little wrong."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

TEXTS = (
    "", " ", "-", "--", "0", "-0", "-1", "1e400", "NaN", "inf", "٣", "½", "9" * 30, str(2**31), str(2**63), str(2**64),
    "-9223372036854775809", "0001-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "9999-12-31", "24:00",
    "1970-01-01T00:00:00Z", "99999999999d", "1" * 400 + "d", "0s", "* * * * *", "0 0 30 2 *", "*/0 * * * *",
    "H H * * *", "0-59/99999999999 * * * *", "Europe/Berlin", "../../etc/passwd", "Europe/\0", "%s%n{0}", "a\0b",
    "a\nb", "\x1b[31m", "🦊", "é", "e\u0301", "İ", "ß", "\u202e", "\ufeff", "\ud800", "x" * 300, "x" * 70_000,
    "'; DROP TABLE sync_run; --", "env:PATH", "file:/dev/null", "https://[::1", "true", "null", "~", "[]", "{}",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 2**31, 2**63, 2**64, 1e308, -0.0, [], {}, [None], {"": None}, [[[[]]]], "items",
)  # fmt: skip

texts = st.sampled_from(TEXTS) | st.text(max_size=20)
values = st.sampled_from(VALUES) | texts


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON document."""
    if not isinstance(document, (dict, list)):
        return [at]
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


def changed(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at that place."""
    if not at:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[at[0]] = changed(copy[at[0]], at[1:], value)
    return copy


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, float, Any]:
    """A change to bytes that are not known yet: its kind, its place from 0 to 1, and what it puts there."""
    kind = draw(
        st.sampled_from(("value", "value", "value", "cut", "insert", "deep", "other", "twice", "nothing"))
    )
    return kind, draw(st.floats(0, 1)), draw(values)


def edited(body: bytes, edit: tuple[str, float, Any]) -> bytes:
    """The bytes with the change."""
    kind, where, value = edit
    at = int(where * len(body))
    written = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else str(value).encode()
    if kind == "value":
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body[:at] + written + body[at + 3 :]
        found = places(document)
        try:
            return orjson.dumps(changed(document, found[int(where * (len(found) - 1))], value))
        except TypeError:  # an integer or a text that JSON can't have
            return body[:at] + written + body[at:]
    return {
        "cut": body[:at],
        "insert": body[:at] + written + body[at:],
        "deep": b"[" * 500_000,
        "other": b"<html><body>Bad gateway</body></html>",
        "twice": body + body,
        "nothing": b"",
    }[kind]
