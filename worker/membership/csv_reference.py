"""The rows of a snapshot as Python's csv module reads them: the law, at 1 us a row.

`csv_fast` reads the same cells many times faster where the quoting is regular, and hands the file to this
module where it is not. So this module alone decides what an odd file means, and which row is to blame.
An unquoted CR ends a row, a quote inside an unquoted cell is a character, and an empty line is no row, except
in a file of one column, where it is the only way to write an empty cell without quotes.

A stray double quote makes one cell of many rows, and those who stood in them would leave. So text after a closing
quote and a key with a line break refuse the file, and rows that span lines are counted for the guard.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from models.contact_keys.comparison import has_line_break
from models.errors import ContractError
from worker.membership.snapshot_file import LINE, SnapshotFile

_ROWS = 50_000


@dataclass
class Spans:
    """What quoted cells of a file hold beside their first line: `lines`, and of them those shaped like a row."""

    lines: int = 0
    rows: int = 0

    def add(self, row: list[str], lines: int) -> None:
        """One row that spans so many lines more than one."""
        self.lines += lines
        commas = len(row) - 1
        for cell in row:
            if has_line_break(cell):
                self.rows += sum(part.count(",") == commas for part in cell.splitlines()[1:])


def read(file: SnapshotFile, spans: Spans | None = None) -> Iterator[list[str]]:
    """The key cells, one leading TAB removed, in lists; rows that span lines are counted in `spans`."""
    with file.path.open("rb") as raw:
        raw.seek(file.start)
        lines = _Lines(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        try:
            yield from _Rows(lines, len(file.columns), file.column, spans or Spans()).cells()
        except UnicodeDecodeError as error:
            raise ContractError("SNAPSHOT_ENCODING") from error
        except csv.Error as error:
            raise _refused(lines, error) from error


def _refused(lines: _Lines, error: csv.Error) -> ContractError:
    if lines.ended:
        return ContractError("SNAPSHOT_TRUNCATED", "It ends inside quotes.")
    if "expected after" in str(error):  # csv.reader, strict
        return ContractError(
            "SNAPSHOT_NOT_CSV", f"Line {lines.count:,} after the header has text after a closing quote."
        )
    return ContractError("SNAPSHOT_NOT_CSV", f"Near line {lines.count:,} after the header: {error}.")


class _Lines:
    """The lines for csv.reader, which swallows an end inside quotes: `ended` tells that it asked for more."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text = text
        self.count = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(LINE)
        if not line:
            self.ended = True
            raise StopIteration
        if len(line) == LINE:
            raise ContractError("SNAPSHOT_NOT_CSV", f"Row {self.count:,} has no end.")
        self.count += 1
        return line


class _Rows:
    """The key cell of each row; whatever is no row of this file refuses all of it."""

    def __init__(self, lines: _Lines, width: int, column: int, spans: Spans) -> None:
        self._lines, self._width, self._column, self._spans = lines, width, column, spans
        self._before = 0
        self._short = 0

    def cells(self) -> Iterator[list[str]]:
        """In lists."""
        cells: list[str] = []
        for row in csv.reader(self._lines, strict=True):
            if self._whole(row):
                cells.append(row[self._column].removeprefix("\t") if row else "")
            if len(cells) == _ROWS:
                yield cells
                cells = []
        if self._short:
            raise ContractError("SNAPSHOT_TRUNCATED", "Its last row has too few cells.")
        yield cells

    def _whole(self, row: list[str]) -> bool:
        """Whether it is a row: an empty line is none, and neither is a short last one, which refuses the file."""
        line = self._lines.count
        extra, self._before = line - self._before - 1, line
        if self._short:
            raise _at(self._short, "has too few cells")
        if not row and self._width > 1:
            return False
        if len(row) > self._width:
            raise _at(line, "has too many cells")
        if row and len(row) < self._width:
            self._short = line
            return False
        if extra:
            if has_line_break(row[self._column]):
                raise _at(line, "ends a contact key that holds a line break")
            self._spans.add(row, extra)
        return True


def _at(line: int, what: str) -> ContractError:
    return ContractError("SNAPSHOT_NOT_CSV", f"Line {line:,} after the header {what}.")
