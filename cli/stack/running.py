"""The stack that runs on a data directory: its process and its addresses, for `status`, `down` and a second `up`.

A file that the stack keeps locked while it lives: a process id alone may be another process's by now.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models.errors import ConfigurationError
from models.private_files import make_private_dir

FILE = "stack.json"
PATIENCE_SECONDS = 1.0  # the last stack may be just ending


@dataclass(frozen=True)
class Running:
    """A stack that lives. An address is empty until the stack has told it."""

    pid: int
    flower: str = ""
    metrics: str = ""


class Announcement:
    """The stack's side of the file."""

    def __init__(self, file: int) -> None:
        self._file = file

    def tell(self, **addresses: str) -> None:
        """Write down where its pages are."""
        text = json.dumps({"pid": os.getpid(), **addresses}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)


@contextmanager
def announced(data_dir: Path) -> Iterator[Announcement]:
    """Hold the file while a stack lives; ALREADY_RUNNING if another one does."""
    try:
        make_private_dir(data_dir)
        file = os.open(data_dir / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        mistake = f"COHORT_SYNC_DATA_DIR: {str(data_dir)!r} can't be used ({error.strerror})"
        raise ConfigurationError("SETTINGS_INVALID", mistakes=mistake) from None
    try:
        _lock(file, data_dir)
        here = Announcement(file)
        here.tell()
        yield here
        os.ftruncate(file, 0)
    finally:
        os.close(file)


def find(data_dir: Path) -> Running | None:
    """The stack that lives on this directory, if one does."""
    with suppress(OSError), (data_dir / FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError, TypeError):  # it is being written
                return Running(**json.loads(file.read()))
            return Running(0)
    return None


def stop(data_dir: Path, seconds: float) -> Running | None:
    """Tell the stack to end and wait until it has; which one it was, none if there was none. TimeoutError after that
    time: it goes on ending.
    """
    found, deadline = find(data_dir), time.monotonic() + seconds
    if found is None:
        return None
    if found.pid:
        with suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)
    while (left := find(data_dir)) is not None and left.pid in {0, found.pid}:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)
    return found


def _lock(file: int, data_dir: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another stack, or somebody who looks at this very moment
            if time.monotonic() > deadline:
                found = find(data_dir)
                pid = found.pid if found and found.pid else "unknown"
                raise ConfigurationError("ALREADY_RUNNING", pid=pid) from None
            time.sleep(0.05)
