"""Where a cohort's keys come from: a CSV file, or blobs of keys in a file or straight from whoever has them.

A diff takes any of them. Each knows its digest, so that an unchanged cohort needs no diff, and is read by an `Intake`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from models.contact_keys.codec import HEADER_BYTES, count, decode
from worker.membership import csv_fast, csv_reference
from worker.membership.csv_reference import Spans
from worker.membership.loader import DiffInput, Intake, Totals, expected_rows
from worker.membership.snapshot_file import SnapshotFile, digest_of, inspect

_NUMBER = struct.Struct("<Q")


class OpenSource(Protocol):
    """A source that is ready to be read, once or more."""

    @property
    def expected(self) -> int:
        """A guess at its rows."""

    def read(self, intake: Intake) -> tuple[DiffInput, Totals]:
        """Every row; returns only if all of it was good."""


class KeySource(Protocol):
    """The keys of a cohort."""

    def digest(self) -> str:
        """Equal for equal contents; asked once, it is not made again."""

    def opened(self, workdir: Path) -> AbstractContextManager[OpenSource]:
        """Ready to be read; temporary files go to `workdir` and are gone afterwards."""


@dataclass
class CsvFile:
    """The cohort file at `path`, plain or gzip, with the keys in `column`; `max_bytes` bounds it decompressed."""

    path: Path
    column: str
    max_bytes: int
    _digest: str | None = field(default=None, init=False)

    def digest(self) -> str:
        """Of the decompressed bytes and the column's name."""
        if self._digest is None:
            self._digest = digest_of(self.path, self.column, max_bytes=self.max_bytes)
        return self._digest

    @contextmanager
    def opened(self, workdir: Path) -> Iterator[OpenSource]:
        """Refused with a SNAPSHOT_* error if its header is not that of a cohort file."""
        file = inspect(self.path, self.column, max_bytes=self.max_bytes, workdir=workdir)
        try:
            yield _OpenCsv(file, self._digest)
        finally:
            if file.path != self.path:
                file.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _OpenCsv:
    file: SnapshotFile
    digest: str | None

    @property
    def expected(self) -> int:
        return expected_rows(self.file)

    def read(self, intake: Intake) -> tuple[DiffInput, Totals]:
        """By the fast reader if it can."""
        file, known = self.file, self.digest
        names = _names(file.columns[file.column], file.wanted)
        spans = Spans()
        try:
            made = hashlib.sha256()
            width, column = len(file.columns), file.column
            side, counted = intake.cells(
                lambda chunk: csv_fast.parse(chunk, width, column),
                csv_fast.chunks(file, made.update if known is None else len),
                names,
            )
            made.update(b"\0" + file.wanted.encode())
            return side, Totals(*counted, spans, known or made.hexdigest())
        except csv_fast.Irregular:
            side, counted = intake.cells(csv_fast.cells_of, csv_reference.read(file, spans), names)
            return side, Totals(*counted, spans, known or digest_of(file.path, file.wanted))


@dataclass
class KeyBlobs:
    """Keys by the blob, as `compact` orders them; `blobs` reads anew from the start.

    `column` is the mapped property, `expected` a guess at the rows, and `blank` rows have no key.
    """

    blobs: Callable[[], Iterable[bytes]]
    column: str
    expected: int = 0
    blank: int = 0
    _digest: str | None = field(default=None, init=False)

    def digest(self) -> str:
        """Of the blobs and the number of blank rows."""
        if self._digest is None:
            made = self._hash()
            for blob in self.blobs():
                made.update(blob)
            self._digest = made.hexdigest()
        return self._digest

    def opened(self, workdir: Path) -> AbstractContextManager[OpenSource]:  # noqa: ARG002 - nothing to unpack
        """As it is."""
        return nullcontext(self)

    def read(self, intake: Intake) -> tuple[DiffInput, Totals]:
        """The blobs, with so many blank rows after them."""
        made = self._hash()

        def seen() -> Iterator[bytes]:
            for blob in self.blobs():
                made.update(blob)
                yield blob

        side, (rows, blank, longest, odd) = intake.cells(
            lambda blob: csv_fast.cells_of_array(decode(blob)), seen(), _names(self.column)
        )
        self._digest = made.hexdigest()
        return side, Totals(rows + self.blank, blank + self.blank, longest, odd, Spans(), self._digest)

    def _hash(self) -> hashlib._Hash:
        return hashlib.sha256(b"blobs" + _NUMBER.pack(self.blank))


def _names(*columns: str) -> frozenset[str]:
    """What a header cell of these columns may say, in lower case."""
    return frozenset(name.lower() for column in columns for name in (column, column.removeprefix("gp:")))


def write_blobs(path: Path, blobs: Iterable[bytes], blank: int = 0) -> None:
    """Keep blobs in a file: the number of blank rows, then each blob after its length."""
    with path.open("wb") as file:
        file.write(_NUMBER.pack(max(blank, 0)))
        for blob in blobs:
            file.write(_NUMBER.pack(len(blob)))
            file.write(blob)


def blobs_of(path: Path, column: str) -> KeyBlobs:
    """What `write_blobs` kept."""
    expected = 0
    with path.open("rb") as file:
        (blank,) = _NUMBER.unpack(file.read(_NUMBER.size))
        while length := file.read(_NUMBER.size):
            head = file.read(HEADER_BYTES)
            expected += count(head)
            file.seek(_NUMBER.unpack(length)[0] - len(head), os.SEEK_CUR)

    def blobs() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(_NUMBER.size)
            while length := file.read(_NUMBER.size):
                yield file.read(*_NUMBER.unpack(length))

    return KeyBlobs(blobs, column, expected, blank)
