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

JSON_FLAG = "--json"
NONE = "-"

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


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows under headings; the sentence `empty` if there are none."""
    cells = [[clean(text(value)) for value in row] for row in rows]
    if not cells:
        say(empty)
    elif sys.stdout.isatty():
        _rich_table(headings, cells)
    else:
        for line in _aligned([[heading.upper() for heading in headings], *cells]):
            print(line)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing: a name and a value on each line."""
    rows = [[label, clean(text(value))] for label, value in pairs]
    for line in _aligned(rows):
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
    away = value - now
    far = span(abs(away))
    return f"{text(value)} ({f'in {far}' if away > timedelta() else f'{far} ago'})"


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


def _json_value(value: object) -> str | None:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _aligned(rows: list[list[str]]) -> Iterable[str]:
    rows = [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _rich_table(headings: Sequence[str], rows: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)
