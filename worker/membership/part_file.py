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
        self._parts: list[tuple[int, int, int]] = []  # rows, and from where to where in the file
        self._end = 0

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
        self._parts.append((n, self._end, self._end + len(keys)))
        self._end += len(keys)

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(n for n, _, _ in self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return self.between(0, len(self))

    def between(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The parts from `start` on, before `stop`."""
        for n, begin, end in self._parts[start:stop]:
            self._file.seek(begin)
            yield n, self._file.read(end - begin)

    def size(self, part: int) -> int:
        """Bytes of one part."""
        _, begin, end = self._parts[part]
        return end - begin
