"""One stack on a data directory: an advisory lock on a file in it.

The lock belongs to an open file, not to a process: it is handed down to the embedded Valkey as well, so it is
free only when the stack *and* its server have ended. A killed stack needs no cleaning up after.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from models.errors import ConfigurationError
from models.private_files import make_private_dir

# How long the last process of a stack that was killed may take to end. Whether the holder's process id is alive
# tells nothing: it may be a zombie, or another process by now.
PATIENCE_SECONDS = 1.0


class DirectoryLock:
    """Held between enter and exit; ALREADY_RUNNING if another process holds it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "stack.lock"
        self.fd = -1

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            make_private_dir(self.path.parent)
            while (holder := self._try()) is not None:
                if time.monotonic() > deadline:
                    raise ConfigurationError("ALREADY_RUNNING", pid=holder or "unknown")
                time.sleep(0.05)
        except OSError as error:
            mistake = f"COHORT_SYNC_DATA_DIR: {str(self.path.parent)!r} can't be used ({error.strerror})"
            raise ConfigurationError("SETTINGS_INVALID", mistakes=mistake) from None
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)  # while it is held: `_try` sees that its file is another one
        os.close(self.fd)
        self.fd = -1

    def _try(self) -> int | None:
        """None if it is ours now, else the holder's process id (0: not known)."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).strip()
            os.close(fd)
            return int(holder) if holder.isdigit() else 0
        with suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == self.path.stat().st_ino:
                self.fd = fd
                return None
        os.close(fd)  # the holder before us removed this very file
        return 0
