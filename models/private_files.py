"""Files and directories for their owner alone, and files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def temporary_dir(data_dir: Path, name: str) -> Iterator[Path]:
    """A directory for temporary files, on the data directory's disk, for its owner alone; gone afterwards."""
    work = data_dir / "work"
    make_private_dir(work)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=work) as directory:
        yield Path(directory)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, of mode 0600, that takes its place at the end, or is gone after an error."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def make_private_dir(path: Path) -> None:
    """A directory for its owner alone: made, or closed to others if it is ours.

    One that everybody may write to, such as /tmp, and the home directory stay as they are: the files are 0600.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    open_to_others = found.st_mode & 0o077
    if (
        open_to_others
        and found.st_uid == os.geteuid()
        and not found.st_mode & stat.S_ISVTX
        and path != Path.home()
    ):
        path.chmod(stat.S_IMODE(found.st_mode) & ~0o077)


def private_file(path: Path, content: str) -> str:
    """What stands in the file; `content` if it had to be made. Two processes may race: one content wins."""
    make_private_dir(path.parent)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(FileExistsError):
        if not path.exists():
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(handle, content.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            try:
                os.link(draft, path)  # atomic, and fails if another process was first
            finally:
                draft.unlink()
    return path.read_text().strip()
