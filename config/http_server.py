"""The HTTP server of our own ports: uvicorn, with an end to what a stranger may keep open."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import uvicorn

from config import connections
from config.http_connection import Connection

# What was begun is answered within this time after a signal.
GRACE_SECONDS = 5
KEEP_ALIVE_SECONDS = 75
KERNEL_BACKLOG = 512
_ENDS = (signal.SIGINT, signal.SIGTERM)


class HttpServer(uvicorn.Server):
    """Serves `app`, an ASGI application, on sockets that are open already.

    `ready` is called once it answers, `tick` about ten times a second from then on.
    """

    def __init__(
        self, app: Any, *, ready: Callable[[], object] = int, tick: Callable[[], object] = int
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
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
        )
        self._ready, self._tick = ready, tick

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn."""
        self._tick()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        for listening in sockets or []:  # it waits in the kernel where not all are accepted in a row
            listening.listen(KERNEL_BACKLOG)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's way raises the signal anew at the end: then nothing would be closed, and 143 be the code.

        In another thread than the main one, whoever started the server stops it: `should_exit`.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _ENDS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def connections_of(limit: int) -> type[asyncio.Protocol]:
    """What uvicorn makes for each connection, of which there are at most `limit`."""
    others: connections.Connections[Connection] = connections.Connections(
        limit, close=Connection.end, busy=lambda one: one.busy
    )
    return cast("type[asyncio.Protocol]", partial(Connection, others=others))
