"""The receiver as a process: one listening socket, ended by SIGTERM or Ctrl-C after what it is writing."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn

from config import connections, log_limit
from config.logging import configure
from config.pulse import Pulse
from config.settings import Settings
from models.database import Database
from models.errors import ConfigurationError
from receiver.app import MAX_BYTES, Receiver
from receiver.authentication import SourceSecrets
from receiver.connection import Connection

# Longer than Amplitude waits for an answer: what was begun is written and answered.
GRACE_SECONDS = 5
KEEP_ALIVE_SECONDS = 75
KERNEL_BACKLOG = 512
_ENDS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], object], pulse: Pulse) -> None:
        super().__init__(config)
        self._ready, self._pulse = ready, pulse

    async def on_tick(self, counter: int) -> bool:
        self._pulse.beat()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:  # it waits in the kernel where not all are accepted in a row
            listening.listen(KERNEL_BACKLOG)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's way raises the signal anew at the end: then nothing would be closed, and 143 be the code."""
        before = {number: signal.signal(number, self.handle_exit) for number in _ENDS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    max_bytes: int = MAX_BYTES,
    ready: Callable[[str], object],
) -> int:
    """Receive until told to stop; `ready` gets the address once it answers. Port 0 means any free one."""
    configure(settings, "receiver")
    log_limit.limit("receiver.strangers", "uvicorn.error", "asyncio")
    db = Database(settings)
    doors = SourceSecrets(db)
    listening = _listen(host, port)
    try:
        doors.start()
        address = f"http://{_shown(host)}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            Receiver(db, doors, max_bytes=max_bytes).app,
            http=connections_of(connections.most()),
            backlog=connections.ACCEPTED_IN_A_ROW,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _Server(config, lambda: ready(address), Pulse(settings.data_dir, "receiver")).run(sockets=[listening])
    finally:
        doors.close()
        listening.close()
        db.dispose()
    return 0


def connections_of(limit: int) -> type[asyncio.Protocol]:
    """What uvicorn makes for each connection, of which there are at most `limit`."""
    others: connections.Connections[Connection] = connections.Connections(
        limit, close=Connection.end, busy=lambda one: one.busy
    )
    return cast("type[asyncio.Protocol]", partial(Connection, others=others))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(KERNEL_BACKLOG)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            "SETTING_INVALID",
            field="host and port",
            value=f"{host}:{port}",
            hint=f"Nothing can listen there: {error.strerror}. Choose another --port.",
        ) from None
    return found


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
