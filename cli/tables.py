"""Tables for people: a terminal gets what fits it, and a pipe gets every column and value whole.

On a terminal, a column that is empty in every row is left out. If the rest is too wide, columns give way by rank, the
highest first; then the last column is cut, and only then the widest of the others. No line is ever wrapped.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GAP = 2
LEAST = 12  # cells that a cut column keeps
NONE = "-"

# state: (sign, the same in ASCII, ANSI colour)
_STATES = {
    "succeeded": ("✓", "+", 32),
    "ok": ("✓", "+", 32),
    "partial": ("◐", "~", 33),
    "warning": ("!", "!", 33),
    "held": ("‖", "=", 35),
    "failed": ("✗", "x", 31),
    "cancelled": ("⊘", "/", 90),
    "skipped": ("↷", ">", 90),
    "running": ("▶", ">", 36),
    "waiting": ("…", ".", 36),
    "queued": ("·", ".", 36),
    "deferred": ("·", ".", 36),
    "paused": ("‖", "=", 33),
}


@dataclass(frozen=True)
class Column:
    """A heading, and when it gives way: rank 0 never does, of the others the highest goes first."""

    heading: str
    rank: int = 0


class State(str):
    """A cell whose first word is a state: on a terminal it carries a sign and a colour."""

    __slots__ = ()

    @property
    def signed(self) -> str:
        """With its sign in front."""
        sign, plain, _ = _STATES.get(self._word, ("", "", 0))
        found = sign if _unicode() else plain
        return f"{found} {self}" if found else str(self)

    @property
    def colour(self) -> int:
        """The ANSI colour; 0 for none."""
        return _STATES.get(self._word, ("", "", 0))[2]

    @property
    def _word(self) -> str:
        return self.partition(" ")[0]


def plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """The lines for a pipe: aligned, complete, with the headings in capitals."""
    return aligned([[column.heading.upper() for column in columns], *rows])


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """The lines for this terminal."""
    width = shutil.get_terminal_size().columns
    shown = [[cell.signed if isinstance(cell, State) else cell for cell in row] for row in rows]
    kept, widths = _widths(columns, shown, width)
    yield _styled(_line([columns[n].heading for n in kept], widths), 1)
    for row, cells in zip(rows, shown, strict=True):
        yield _line([cells[n] for n in kept], widths, [_colour(row[n]) for n in kept])


def aligned(rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Rows of cells, each column as wide as its widest cell."""
    flat = [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(_cells, column)) for column in zip(*flat, strict=True)]
    for row in flat:
        yield _line(row, widths)


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[int], list[int]]:
    """Which columns are kept, and how wide each is."""
    natural = [
        max(_cells(column.heading), *(_cells(row[n]) for row in rows)) for n, column in enumerate(columns)
    ]
    kept = [n for n in range(len(columns)) if n == 0 or any(row[n] != NONE for row in rows)]

    def excess() -> int:
        return sum(natural[n] for n in kept) + GAP * (len(kept) - 1) - width

    while excess() > 0 and (giving := [n for n in kept if columns[n].rank]):
        # Cutting the last column is better than losing another one, while enough of it is left.
        if natural[kept[-1]] - excess() >= max(LEAST, _cells(columns[kept[-1]].heading)):
            break
        kept.remove(max(giving, key=lambda n: (columns[n].rank, n)))
    for n in [kept[-1], *sorted(kept[:-1], key=lambda n: -natural[n])]:
        if excess() > 0:
            natural[n] = max(min(natural[n], LEAST), natural[n] - excess())
    return kept, [natural[n] for n in kept]


def _line(cells: Sequence[str], widths: Sequence[int], colours: Sequence[int] | None = None) -> str:
    from rich.cells import set_cell_size

    line, colours = "", colours or [0] * len(cells)
    for place, (cell, width, colour) in enumerate(zip(cells, widths, colours, strict=True)):
        flat = cell.replace("\n", " ")
        if _cells(flat) > width:
            flat = set_cell_size(flat, width - 1).rstrip() + ("…" if _unicode() else "~")
        padding = " " * (width - _cells(flat) + GAP) if place < len(cells) - 1 else ""
        line += _styled(flat, colour) + padding
    return line.rstrip()


def _cells(text: str) -> int:
    """The width on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _colour(cell: str) -> int:
    return cell.colour if isinstance(cell, State) else 0


def _styled(text: str, code: int) -> str:
    if not code or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
