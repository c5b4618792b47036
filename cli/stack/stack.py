"""The whole product on one machine: `cohort-sync up`, and the same for tests and the demo.

    with Stack(settings) as stack:
        stack.wait_until_ready()

The embedded Valkey (unless a Redis is configured), a scheduler, workers, Flower and the monitor: the very commands
that run in production, each in a process of its own with these settings in its environment. One that ends or is stuck
is started again; all of them end with the stack, also when the stack is killed outright.

Nothing here knows what a sync is. Nor is a library of the database or of the queue loaded here: a stack lives for
months, and they would hold 50 MB.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from pydantic import SecretStr

from cli.flower.credentials import Credentials, credentials
from cli.stack import ports, prepared
from cli.stack.lock import DirectoryLock
from cli.stack.silence import Silence
from cli.stack.supervise import Program, Supervisor
from cli.stack.valkey import EmbeddedValkey
from config import pulse
from config.graceful_stop import GracefulStop
from config.settings import Settings
from models.errors import ConfigurationError

# A worker ends when its tasks have; what is cut off is resumed by whoever claims the run next.
WORKER_GRACE_SECONDS = 25.0
READY_SECONDS = 60.0

_log = logging.getLogger("cohort-sync.stack")


class Stack:
    """Everything that runs, between enter and exit. With `log` the processes write there, not on this output."""

    def __init__(
        self,
        settings: Settings,
        *,
        workers: int = 1,
        pages: bool = True,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Without `pages` there is neither Flower nor the monitor: nobody looks."""
        self.settings = settings
        self.environment = {**os.environ, **(environment or {}), **environment_of(settings)}
        self.flower_url = ""
        self.monitor_url = ""
        self.password = Credentials("", "")
        self.database = ""  # its URL, without the password
        self.valkey: EmbeddedValkey | None = None
        self._workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self._pages = [ports.FLOWER, ports.MONITOR] if pages else []
        self._log = log
        self._supervisor = Supervisor()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            listening = self._listen(stack)
            if self.settings.embedded_broker:
                self.valkey = stack.enter_context(EmbeddedValkey(self.settings))
            else:
                stack.enter_context(DirectoryLock(self.settings.data_dir))
            self.database = prepared.database(self.environment)
            self.password = credentials(self.settings)
            if listening:
                self.flower_url, self.monitor_url = map(ports.url_of, listening.values())
            stack.enter_context(self._supervisor)
            for program in self._programs(listening):
                self._supervisor.start(program)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Workers finish what they are at, within their grace; the queue's server goes last."""
        self._open.close()

    def _listen(self, stack: ExitStack) -> dict[ports.Port, socket.socket]:
        """The open ports, before anything is started. Where a stack has this directory, that is what is wrong."""
        try:
            return {page: stack.enter_context(page.open(self.settings)) for page in self._pages}
        except ConfigurationError:
            with DirectoryLock(self.settings.data_dir):
                raise

    @property
    def names(self) -> list[str]:
        """The processes this stack keeps running, the queue's server aside."""
        return ["scheduler", *self._workers, *(page.name for page in self._pages)]

    def pid(self, name: str) -> int | None:
        """A process by its name, None while it is down."""
        if name == "valkey":
            return self.valkey.pid if self.valkey else None
        return self._supervisor.pid(name)

    def ends(self, name: str) -> int:
        """How often a process ended by itself."""
        return self._supervisor.ends(name)

    def wait_until_ready(self, seconds: float = READY_SECONDS, *, leave: GracefulStop | None = None) -> bool:
        """Whether within that time every worker could take tasks, and Flower and the monitor answered."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (leave and leave.asked):
            if all(map(self._takes_tasks, self._workers)) and all(map(_answers, self._health)):
                return True
            leave.wait(0.1) if leave else time.sleep(0.1)
        return False

    def _takes_tasks(self, worker: str) -> bool:
        pid = self.pid(worker)
        return pid is not None and pulse.is_ready(self.settings.data_dir, "worker", pid)

    @property
    def _health(self) -> tuple[str, ...]:
        return (f"{self.flower_url}/healthcheck", f"{self.monitor_url}/healthz") if self._pages else ()

    def _programs(self, listening: Mapping[ports.Port, socket.socket]) -> Iterator[Program]:
        environment = self.environment
        yield Program(
            "scheduler", ["run", "scheduler"], environment, log=self._log, silence=self._silence("scheduler")
        )
        for name in self._workers:
            yield Program(
                name,
                ["run", "worker", "--name", name],
                environment,
                WORKER_GRACE_SECONDS,
                log=self._log,
                silence=self._silence("worker"),
            )
        for page, opened in listening.items():
            yield Program(
                page.name,
                ["run", page.name],
                {**environment, page.variable: str(opened.fileno())},
                log=self._log,
                pass_fds=(opened.fileno(),),
                silence=self._silence(page.name),
            )

    def _silence(self, role: str) -> Silence:
        data_dir = self.settings.data_dir
        return Silence(partial(pulse.last_beat, data_dir, role), partial(pulse.can_beat, data_dir))


class StopRequested(GracefulStop):
    """Told once, a stack ends in good order; told again it hurries: an interrupt cuts what it waits for.

    The first time it is a word and no exception. Python drops one that is raised in the callback of a weak reference,
    and one that passes through a dataclass in the making ends the process by SIGINT, whoever has caught it.
    With `at_once` it is both, so that whoever waits in another's code is cut short, and asks again at its next step.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__()
        self._at_once = at_once

    def install(self) -> None:
        """StopRequested on SIGTERM, SIGINT and SIGHUP, also in a shell's background job, where Ctrl-C is ignored."""
        super().install()
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: it shall outlive the terminal
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        hurry = self.asked or self._at_once
        super()._on_signal(number, frame)
        if hurry:
            raise KeyboardInterrupt


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives another process these settings, whatever its own `.env` says."""
    return {f"COHORT_SYNC_{name.upper()}": _text(value) for name, value in settings}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)


def _answers(url: str) -> bool:
    # Not through a proxy of the environment: it is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
    except OSError:
        return False
