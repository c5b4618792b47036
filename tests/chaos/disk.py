"""A disk that is full: of a file system of its own, and by a limit to each file's size.

The file system needs a mount, which root may do, and anybody else in a user namespace where the kernel allows that.
It is a mount of this process alone, so nothing of it stays when the process ends, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.chaos.kinds import act
from tests.chaos.storm import Storm

ROOM_MB = 96
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # <linux/sched.h>
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2  # <linux/mount.h>
FILLER = "filler"


def private_mounts() -> bool:
    """Let this process mount what nobody else sees; False where it may not. Only before it has threads."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return False
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER) != 0:
        return False
    if uid != 0:
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return bool(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0)


@contextmanager
def small(directory: Path) -> Iterator[None]:
    """The directory is a small file system. After `private_mounts`."""
    libc, options = ctypes.CDLL(None, use_errno=True), f"size={ROOM_MB}m,mode=0700".encode()
    if libc.mount(b"cs-chaos", bytes(directory), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount(tmpfs)")
    try:
        yield
    finally:
        libc.umount2(bytes(directory), MNT_DETACH)


def is_small(directory: Path) -> bool:
    return os.path.ismount(directory)


@act("disk full", only_if=lambda storm: is_small(storm.directory))
def fill(storm: Storm, rng: random.Random) -> None:
    """Not one byte is left for data, queue, files and logs."""
    filler, block = storm.directory / FILLER, b"\0" * 65_536
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            if file.write(block) < len(block):
                block = block[: len(block) // 2] or b"\0"
    storm.later(rng.uniform(0.3, 4.0), lambda: filler.unlink(missing_ok=True))


def family(storm: Storm) -> Iterator[psutil.Process]:
    """The product's processes, parents before what they fork."""
    for pid in storm.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)


def limit(storm: Storm, most: int) -> None:
    for process in family(storm):
        with suppress(OSError):
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(
                process.pid, resource.RLIMIT_FSIZE, (most if hard < 0 else min(most, hard), hard)
            )


@act("no file may grow", only_if=lambda _: hasattr(resource, "prlimit"))
def no_growth(storm: Storm, rng: random.Random) -> None:
    """EFBIG from every write beyond so many bytes, also to the log."""
    limit(storm, rng.choice((0, 4096, 100_000)))
    storm.later(rng.uniform(0.3, 4.0), lambda: limit(storm, resource.RLIM_INFINITY))
