"""Blobs of keys made before the transaction that stores them: whoever writes to SQLite keeps everybody else waiting."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self


class PartFile:
    """(rows, keys) parts, in a file without a name: there may be more of them than fit memory."""

    def __init__(self, workdir: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=workdir)  # noqa: SIM115 - closed with the object
        weakref.finalize(self, self._file.close)
        self._sizes: list[tuple[int, int]] = []

    @classmethod
    def of(cls, parts: Iterable[tuple[int, bytes]], workdir: Path) -> Self:
        """All of them."""
        made = cls(workdir)
        for n, keys in parts:
            made.add(n, keys)
        return made

    def add(self, n: int, keys: bytes) -> None:
        """The next one."""
        self._file.write(keys)
        self._sizes.append((n, len(keys)))

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(n for n, _ in self._sizes)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(0)
        for n, size in self._sizes:
            yield n, self._file.read(size)
