"""The rows of a snapshot as Python's csv module reads them: the law, at 1 us a row.

`csv_blocks` reads the same cells many times faster where the quoting is regular, and hands the file to this
module where it is not. So this module alone decides what an odd file means, and which row is to blame.
An unquoted CR ends a row, a quote inside an unquoted cell is a character, and an empty line is no row, except
in a file of one column, where it is the only way to write an empty cell without quotes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from models.errors import ContractError
from worker.membership.snapshot_file import SnapshotFile

_ROWS = 50_000
_LINE = 1 << 24
"""A line longer than this is not a row of a cohort."""


def read(file: SnapshotFile) -> Iterator[list[str]]:
    """The key cells, one leading TAB removed, in lists."""
    with file.path.open("rb") as raw:
        raw.seek(file.start)
        lines = _Lines(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        try:
            yield from _cells(csv.reader(lines), lines, len(file.columns), file.column)
        except UnicodeDecodeError as error:
            raise ContractError("SNAPSHOT_ENCODING") from error
        except csv.Error as error:
            raise ContractError("SNAPSHOT_NOT_CSV", f"Near row {lines.count:,}: {error}.") from error


class _Lines:
    """The lines for csv.reader, which swallows an end inside quotes: `ended` tells that it asked for more."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text = text
        self.count = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(_LINE)
        if not line:
            self.ended = True
            raise StopIteration
        if len(line) == _LINE:
            raise ContractError("SNAPSHOT_NOT_CSV", f"Row {self.count:,} has no end.")
        self.count += 1
        return line


def _cells(rows: Iterator[list[str]], lines: _Lines, width: int, column: int) -> Iterator[list[str]]:
    cells: list[str] = []
    short = 0
    for row in rows:
        if lines.ended:
            raise ContractError("SNAPSHOT_TRUNCATED", "It ends inside quotes.")
        if short:
            raise ContractError("SNAPSHOT_NOT_CSV", f"Line {short:,} after the header has too few cells.")
        if not row and width > 1:
            continue
        if len(row) > width:
            raise ContractError(
                "SNAPSHOT_NOT_CSV", f"Line {lines.count:,} after the header has too many cells."
            )
        if row and len(row) < width:
            short = lines.count
            continue
        cells.append(row[column].removeprefix("\t") if row else "")
        if len(cells) == _ROWS:
            yield cells
            cells = []
    if short:
        raise ContractError("SNAPSHOT_TRUNCATED", "Its last row has too few cells.")
    yield cells
