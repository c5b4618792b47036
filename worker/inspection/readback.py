"""What Marketing Cloud holds of one attribute, read page by page and kept on disk until it is compared.

A page takes a tenth of a second or more and a large data extension has thousands, so a reading that breaks off goes
on where it stood, also in another process of this machine. In which order rows come is not documented, and they may
change place between two pages: what was not shown is found by counting (`unseen`), and what came twice counts once,
because a reading is given as a log in which the last word on a key counts. A contact with two rows is flagged if one
of them is.

Nothing here compares keys, knows the state, or puts a key anywhere but into its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path

import numpy as np

from models.contact_keys.codec import decode, encode_keys
from models.direction import Direction
from models.private_files import replacing
from worker.inspection.check import is_flagged
from worker.vendors.marketing_cloud.client import MarketingCloud
from worker.vendors.marketing_cloud.data_extension import DataExtension, Field
from worker.vendors.marketing_cloud.rowset import RowsPage

# Pages kept in one file: as many rows as a batch has, so that a diff reads a reading as it reads a state.
_TOGETHER = 10
_SIZE = 4
_IN_VAIN = "in-vain"


class Readback:
    """The rows of a data extension by whether `field` is flagged; goes on where the files in `folder` end."""

    def __init__(
        self, folder: Path, extension: DataExtension, field: Field, gone: Container[str] = ()
    ) -> None:
        """Who is `gone` is not flagged, whatever is there: nothing of them is to be stored."""
        self.pages = self.rows = self.count = 0
        self._folder, self._key = folder, extension.key
        self._gone = gone
        self._name, self._type = field.name.lower(), field.type
        self._waiting = 0
        self._keys: tuple[list[str], list[str]] = ([], [])  # flagged, and not
        if files := self._files():
            self.pages, self.rows = (int(number) for number in files[-1].stem.split("-"))

    def go_on(self, cloud: MarketingCloud, told: Callable[[int, int], None] = lambda *_: None) -> None:
        """Read to the end; an error leaves what was read. `told` hears of (rows read, rows there)."""
        try:
            for page in cloud.pages(self._key, self.pages + 1):
                self._take(page)
                told(self.rows, self.count)
        finally:
            self._store()

    def begin_again(self) -> None:
        """Forget what was read, but not that it was read in vain."""
        (self._folder / _IN_VAIN).touch()
        for file in self._files():
            file.unlink()
        self.pages = self.rows = self.count = 0

    @property
    def in_vain(self) -> bool:
        """Whether it was read to its end before."""
        return (self._folder / _IN_VAIN).exists()

    def move(self, folder: Path) -> None:
        """What was read belongs to `folder` from now on; where it was, the next reading begins anew."""
        self._folder.rename(folder)
        self._folder = folder

    def log(self) -> Iterator[tuple[Direction, bytes]]:
        """The keys that are not flagged as exiting, then the flagged as entering, as a diff reads a state."""
        for direction in (Direction.EXIT, Direction.ENTER):
            for file in self._files():
                stored = file.read_bytes()
                end = _SIZE + int.from_bytes(stored[:_SIZE], "big")
                yield direction, stored[_SIZE:end] if direction == Direction.ENTER else stored[end:]

    def unseen(self, contacts: int) -> int:
        """How many rows no page has shown, though they were there at the end, if `contacts` were seen.

        Where a data extension has two rows for what is one contact to us, their texts are counted.
        """
        if contacts >= self.count:
            return 0
        hashes = np.concatenate([np.zeros(0, np.int64), *(_hashes(blob) for _, blob in self.log())])
        hashes.sort()
        seen = int(np.count_nonzero(np.diff(hashes))) + 1 if len(hashes) else 0
        return max(0, self.count - seen)

    def _take(self, page: RowsPage) -> None:
        self.count = page.count
        if not page.rows:
            return
        flagged, others = self._keys
        for key, values in page.rows:
            is_member = is_flagged(self._type, values.get(self._name)) and key not in self._gone
            (flagged if is_member else others).append(key)
        self.pages, self.rows, self._waiting = page.number, self.rows + len(page.rows), self._waiting + 1
        if self._waiting == _TOGETHER:
            self._store()

    def _store(self) -> None:
        """The pages that wait, as one file: whole, or not at all."""
        if not self._waiting:
            return
        flagged, others = map(encode_keys, self._keys)
        path = self._folder / f"{self.pages:08}-{self.rows}.rows"
        with replacing(path) as draft:
            draft.write_bytes(len(flagged).to_bytes(_SIZE, "big") + flagged + others)
        self._waiting, self._keys = 0, ([], [])

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.rows"))


def _hashes(blob: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    keys = decode(blob)
    return np.fromiter(map(hash, keys), np.int64, len(keys))
