"""Programs that are kept running: started, started again when they end or are stuck, stopped in good order.

One thread does all of it. It has to be one thread, and to live as long as the programs: the kernel kills a
tied process when the *thread* that started it ends (see `cli.stack.parent_death`). Every program leads a session of its
own, so a Ctrl-C in the terminal reaches the stack alone, and what a program leaves behind is found by its
process group.

What a program is for, and whether it is ready, is not known here.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.stack import parent_death
from cli.stack.silence import Silence

LOOK_SECONDS = 0.1
STEADY_SECONDS = 20.0  # a program that ran this long starts again without a penalty
STUCK = "PROCESS_SILENT: no sign of life"
LOG_BYTES = 5_000_000  # a log file larger than this is begun anew when its program starts

_log = logging.getLogger("cohort-sync.stack")


def _nothing() -> None:
    pass


@dataclass
class Program:
    """What to run: `arguments` are `cli.stack.parent_death`'s."""

    name: str
    arguments: list[str]
    environment: Mapping[str, str] | None = None
    grace: float = 10.0  # seconds between the request to end and the kill
    log: Path | None = None  # None: this process's own output
    pass_fds: tuple[int, ...] = ()
    first_delay: float = 0.5  # seconds until it is started again; doubled each time
    most_delay: float = 30.0
    before: Callable[[], None] = _nothing
    silence: Silence | None = None  # None: it gives no sign of life


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    ends: int = 0  # how often it ended by itself
    in_a_row: int = 0
    why: str = ""
    asked: float | None = None  # when it was told to end
    stuck: bool = False  # it was killed for that


class Supervisor:
    """The thread that starts, watches and ends programs."""

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._wake = threading.Event()
        self._stopping = False
        # With the context of who makes it: its lines in the log name the process, too.
        keep = partial(copy_context().run, self._keep)
        self._thread = threading.Thread(target=keep, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask every program to end, kill what has not within its grace; a second Ctrl-C kills at once."""
        self._stopping = True
        self._wake.set()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            for child in self._children:
                child.asked = 0.0
            self._thread.join()

    def start(self, program: Program) -> None:
        """Keep `program` running from now on."""
        self._children.append(_Child(program))
        self._wake.set()

    def pid(self, name: str) -> int | None:
        """The process of a program, None while it is down."""
        process = self._child(name).process
        return process.pid if process and process.poll() is None else None

    def ends(self, name: str) -> int:
        """How often a program ended although nobody asked it to."""
        return self._child(name).ends

    def why(self, name: str) -> str:
        """How it last ended by itself."""
        return self._child(name).why

    def _child(self, name: str) -> _Child:
        return next(c for c in self._children if c.program.name == name)

    def _keep(self) -> None:
        while True:
            self._wake.clear()
            for child in list(self._children):
                try:
                    self._look(child, time.monotonic())
                except Exception as error:  # noqa: BLE001 - this thread's end would kill every program
                    self._again(child, time.monotonic(), f"{type(error).__name__}: {error}")
            if self._stopping and all(c.process is None for c in self._children):
                return
            self._wake.wait(LOOK_SECONDS)

    def _look(self, child: _Child, now: float) -> None:
        process = child.process
        if process is None:
            if not self._stopping and now >= child.start_at:
                self._spawn(child, now)
        elif process.poll() is not None:
            self._ended(child, process, now)
        elif self._stopping:
            if child.asked is None:
                child.asked = now
                process.terminate()
            elif now > child.asked + child.program.grace:
                _log.warning("%s did not end within %.0f s: killed", child.program.name, child.program.grace)
                _kill_group(process.pid)
        elif child.program.silence is not None and child.program.silence.too_long(process.pid, now):
            child.stuck = True
            _kill_group(process.pid)

    def _spawn(self, child: _Child, now: float) -> None:
        program = child.program
        program.before()
        output = _open_log(program.log) if program.log else None
        try:
            child.process = subprocess.Popen(
                parent_death.command(*program.arguments),
                env=program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                pass_fds=program.pass_fds,
                start_new_session=True,
                umask=0o077,
            )
        finally:
            if output is not None:
                os.close(output)
        child.started = now
        if program.silence is not None:
            program.silence.begin(now)

    def _ended(self, child: _Child, process: subprocess.Popen[bytes], now: float) -> None:
        _kill_group(process.pid)  # what it forked and left
        child.process = None
        if not self._stopping:
            self._again(child, now, STUCK if child.stuck else _how(process.returncode))

    def _again(self, child: _Child, now: float, why: str) -> None:
        """Put the next start off, longer each time it fails in a row."""
        child.ends += 1
        child.why = why
        child.in_a_row = 1 if now - child.started >= STEADY_SECONDS else child.in_a_row + 1
        delay = min(child.program.first_delay * 2 ** (child.in_a_row - 1), child.program.most_delay)
        child.start_at = now + delay
        how = "was killed" if child.stuck else "ended by itself"
        child.stuck = False
        _log.warning("%s %s (%s); it starts again in %.1f s", child.program.name, how, why, delay)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of zombies
        os.killpg(leader, signal.SIGKILL)


def _open_log(path: Path) -> int:
    big = path.exists() and path.stat().st_size > LOG_BYTES
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if big else 0), 0o600)
