"""A process that never outlives the one that started it, however that one ended.

    python -P -m cli.stack.parent_death PARENT exec PROGRAM ARGUMENT...    become another program
    python -P -m cli.stack.parent_death PARENT run ARGUMENT...             be `cohort-sync ARGUMENT...`

A stack that is killed outright can't stop anything any more, so what it started has to notice by itself: on
Linux the kernel kills it in the same moment (PR_SET_PDEATHSIG), elsewhere a watch looks for the parent twice a
second. `run` ties what the command forks as well: Celery's pool processes would otherwise go on with a task
whose worker is gone.

It is a launcher and not a `preexec_fn`, because a parent with threads can't run Python safely between fork and
exec. Nothing here restarts or stops anything in good order: `cli.stack.supervise` does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # <linux/prctl.h>
WATCH_SECONDS = 0.5

_self = 0  # the process that forks next, for the race between a fork and the death of its parent


def command(*arguments: str) -> list[str]:
    """A command line that is tied to this process."""
    # -P: a folder named `config` where somebody happens to stand must not stand in for ours.
    return [sys.executable, "-P", "-m", "cli.stack.parent_death", str(os.getpid()), *arguments]


def die_with(parent: int) -> None:
    """Kill this process when `parent`, or the thread of it that started this one, has ended."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    else:
        threading.Thread(target=_watch, args=(parent,), name="tether", daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_forks(parent: int) -> None:
    """The same, for this process and for everything it forks."""
    global _self  # noqa: PLW0603 - os.register_at_fork takes no argument
    _self = os.getpid()
    die_with(parent)
    os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    global _self
    parent, _self = _self, os.getpid()
    die_with(parent)


def _watch(parent: int) -> NoReturn:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    _kill_group()


def _kill_group() -> NoReturn:
    """End this process, and its group if it leads one: nothing may be left in it."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit(1)


def _name(arguments: list[str]) -> None:
    """What `ps -o comm`, `top` and `pstree` show instead of "python": `cs-worker-1`. What it forks has it too."""
    if sys.platform == "linux":
        name = arguments[arguments.index("--name") + 1] if "--name" in arguments else arguments[0]
        ctypes.CDLL(None).prctl(PR_SET_NAME, f"cs-{name}".encode()[:15], 0, 0, 0)


def stay(parent: int, argv: list[str]) -> int:
    """Where the kernel doesn't help: run the program below this process, which watches the parent for it."""
    child = subprocess.Popen(argv, close_fds=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
            _kill_group()
        time.sleep(WATCH_SECONDS / 10)
    return child.returncode


def main(argv: list[str]) -> int:
    """See the module's text."""
    parent, mode, *rest = argv
    if mode == "run":
        die_with_forks(int(parent))
        _name(rest)
        from cli import context
        from cli.main import main as cohort_sync

        context.name_unknown = False  # who started us has done that
        return cohort_sync(rest)
    if sys.platform == "linux" and mode == "exec":
        die_with(int(parent))
        os.execv(rest[0], rest)  # noqa: S606 - an argument vector, never a shell
    return stay(int(parent), rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
