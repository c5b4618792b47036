"""A process's sign of life on its own machine: a file that its main loop touches, and that a probe looks at.

It says nothing of servers: a process that waits for one is alive. A file is read without opening a connection or
loading a library, so a probe costs next to nothing (`cli/health.py`). Under systemd each beat also feeds its watchdog.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BEAT_SECONDS = 5.0
# Longer than what a loop may wait for: a scheduler, 30 s for the database (`scheduler.main.DATABASE_SECONDS`).
STALE_SECONDS = 60.0
READY = b"ready\n"  # in the file of a process that can do its work
ROLES = ("scheduler", "worker", "monitor", "receiver", "flower")


class Pulse:
    """The file of this process. `beat` belongs in the loop that has to go round; it may be called at any rate."""

    def __init__(self, data_dir: Path, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = _file(data_dir, role, os.getpid())
        self._clock = clock
        self._next = float("-inf")
        self._file: int | None = None
        self._ready = False

    def ready(self, ready: bool) -> None:
        """Tell whether the process can do its work; that is a beat."""
        self._ready, self._next = ready, float("-inf")
        self.beat()

    def beat(self) -> None:
        """Touch the file, if it is time again. A directory that can't be written to stops no process."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + BEAT_SECONDS
        _tell_systemd("READY=1\nWATCHDOG=1")
        with suppress(OSError):
            file = self._file if self._held() else None
            if file is None:
                file = self._take()
            told = READY if self._ready else b""
            os.pwrite(file, told, 0)
            os.ftruncate(file, len(told))
            os.utime(self._path)

    def _held(self) -> bool:
        """Whether the locked file is the one a probe finds: it may have met it before it was locked."""
        with suppress(FileNotFoundError):
            return self._file is not None and os.path.samestat(os.fstat(self._file), self._path.stat())
        return False

    def _take(self) -> int:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a probe looks at it this very moment
            os.close(file)
            raise
        self._file = file
        return file

    def stop(self) -> None:
        """The process ends."""
        _tell_systemd("STOPPING=1")
        with suppress(OSError):
            self._path.unlink()


@dataclass(frozen=True)
class Sign:
    """A process of this machine, and the seconds since its last beat."""

    role: str
    pid: int
    age: float


def signs(data_dir: Path, *, now: float) -> list[Sign]:
    """Every process of this machine that beats and has not ended; files of those that were killed are removed.

    A process holds a lock on its file: a number says little, since the system gives it to another process one day.
    """
    found = []
    for path in sorted(_directory(data_dir).glob("*@*@*")):
        role, host, pid = path.name.split("@")
        if host != socket.gethostname() or not pid.isdigit():
            continue
        with suppress(OSError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(Sign(role, int(pid), max(0.0, now - path.stat().st_mtime)))
            else:
                path.unlink()
    return found


def last_beat(data_dir: Path, role: str, pid: int) -> int | None:
    """A number that is another one after each beat of the process; None before the first."""
    with suppress(OSError):
        return _file(data_dir, role, pid).stat().st_mtime_ns
    return None


def is_ready(data_dir: Path, role: str, pid: int) -> bool:
    """Whether that process lives and has told that it can do its work."""
    with suppress(OSError), _file(data_dir, role, pid).open("rb") as file:
        if file.read() != READY:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True  # it is not the file of an earlier process of that number
    return False


def can_beat(data_dir: Path) -> bool:
    """Whether a process can leave a sign there just now: on a full disk, or one that takes no writes, none can."""
    probe = _directory(data_dir) / f".probe-{os.getpid()}"
    try:
        probe.touch(0o600)
        probe.unlink()
    except OSError:
        return False
    return True


def _directory(data_dir: Path) -> Path:
    return data_dir / "run"


def _file(data_dir: Path, role: str, pid: int) -> Path:
    return _directory(data_dir) / f"{role}@{socket.gethostname()}@{pid}"


def _tell_systemd(state: str) -> None:
    """The same sign of life for a service manager, by sd_notify(3); nothing where there is none."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place[:1] not in {"/", "@"}:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.sendto(state.encode(), place.replace("@", "\0", 1) if place[0] == "@" else place)
