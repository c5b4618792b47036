"""What a person or a program reads: tables and facts on a terminal, one JSON document, errors.

Nothing here knows a table of the database. Whatever is shown may come from a vendor, so control characters
never reach the terminal; and what is not a terminal gets every value whole, however narrow it claims to be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cli.tables import NONE, Column, State, aligned, fitted, plain

JSON_FLAG = "--json"

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def say(text: str = "") -> None:
    """A line on stdout."""
    print(clean(text))


def note(text: str) -> None:
    """A line on stderr, where it can't spoil a document on stdout."""
    print(clean(text), file=sys.stderr, flush=True)


def emit(document: Any) -> None:
    """The one JSON document of a command."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(document, indent=2, ensure_ascii=plain, default=_json_value))


def done(text: str, document: Any, *, as_json: bool) -> None:
    """The result of a change: its document, or a sentence."""
    if as_json:
        emit(document)
    else:
        say(text)


def error(code: str, message: str, remedy: str, *, as_json: bool) -> None:
    """A failure by its name, with what to do about it."""
    if as_json:
        emit({"error": {"code": code, "message": message, "remedy": remedy}})
    else:
        note(f"error {code}: {message}")
        note(f"what to do: {remedy}")


def table(
    columns: Sequence[str | Column],
    rows: Iterable[Sequence[object]],
    *,
    empty: str,
    now: datetime | None = None,
) -> None:
    """Rows under headings; the sentence `empty` if there are none.

    With `now`, a terminal shows times by their distance from it; a pipe always gets the exact ones.
    """
    terminal = sys.stdout.isatty()
    named = [Column(column) if isinstance(column, str) else column for column in columns]
    cells = [[_cell(value, now if terminal else None) for value in row] for row in rows]
    if not cells:
        say(empty)
        return
    for line in (fitted if terminal else plain)(named, cells):
        print(line)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing: a name and a value on each line."""
    rows = [[label, clean(text(value))] for label, value in pairs]
    for line in aligned(rows):
        print(line)


def text(value: object) -> str:
    """A value as a cell shows it."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return str(value)


def iso(value: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond, ending in Z."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when(value: datetime | None, now: datetime) -> str:
    """A time, and how far it is from now."""
    if value is None:
        return NONE
    return f"{text(value)} ({distance(value, now)})"


def span(length: timedelta) -> str:
    """A length of time in its largest unit that is not below one."""
    seconds = int(length.total_seconds())
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def clean(value: str) -> str:
    """The text without what a terminal would obey."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in value
    )


def local(value: datetime | None, timezone: str, now: datetime) -> str:
    """A scheduled time in the zone of its schedule, and how far it is from now."""
    if value is None:
        return NONE
    there = value.astimezone(ZoneInfo(timezone))
    return f"{there:%a %Y-%m-%d %H:%M} {timezone} ({distance(value, now)})"


def distance(value: datetime, now: datetime) -> str:
    """How far a time is from now: `in 3 h`, `5 min ago`."""
    far = span(abs(value - now))
    return f"in {far}" if value > now else f"{far} ago"


def _cell(value: object, now: datetime | None) -> str:
    if isinstance(value, datetime) and now is not None:
        return distance(value, now)
    shown = clean(text(value))
    return State(shown) if isinstance(value, State) else shown


def _json_value(value: object) -> str | None:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(type(value).__name__)
