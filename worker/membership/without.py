"""A cohort file without the rows of certain contacts; every other row stays as it is, byte by byte.

The cells are read as `csv_reference` reads them, so whoever it would find in a row is found here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from worker.membership import csv_reference
from worker.membership.snapshot_file import LINE, SnapshotFile, inspect


def without(
    source: Path,
    target: Path,
    column: str,
    gone: Callable[[str], bool],
    *,
    max_bytes: int,
    workdir: Path,
) -> int:
    """Write `source`, decompressed, to `target` without the rows whose key in `column` is `gone`; how many those were.

    Refused with a SNAPSHOT_* error where a diff would refuse the file: what can't be read can't be searched.
    """
    file = inspect(source, column, max_bytes=max_bytes, workdir=workdir)
    try:
        return _written(file, target, gone)
    except (csv.Error, UnicodeDecodeError):
        for _ in csv_reference.read(file):
            pass  # it says what is wrong with the file, and where
        raise
    finally:
        if file.path != source:
            file.path.unlink(missing_ok=True)


def _written(file: SnapshotFile, target: Path, gone: Callable[[str], bool]) -> int:
    removed = 0
    with file.path.open("rb") as raw, target.open("wb") as out:
        out.write(raw.read(file.start))
        lines = _Kept(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        for row in csv.reader(lines, strict=True):
            text = lines.taken()
            if len(row) > file.column and gone(row[file.column].removeprefix("\t")):
                removed += 1
            else:
                out.write(text.encode())
        out.write(lines.taken().encode())
    return removed


class _Kept:
    """The lines for csv.reader, kept until the row that they make has been given."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._lines: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(LINE)
        if not line:
            raise StopIteration
        self._lines.append(line)
        return line

    def taken(self) -> str:
        """The text of the row that was given last."""
        text = "".join(self._lines)
        self._lines.clear()
        return text
