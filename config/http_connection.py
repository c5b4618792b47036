"""One connection to the receiver, with an end to everything that a stranger could draw out.

uvicorn has no limit on the time in which a request's head arrives, and at its limit of connections it turns everybody
away (0.54, `limit_concurrency`). Here a connection that only waits makes room for a new one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from config.connections import Connections

# From the first connection or byte of a request to the end of its head; also for a body that nobody wants to read.
HEAD_SECONDS = 10.0
# From there to the end of the answer: longer than a body and a transaction may take.
REQUEST_SECONDS = 60.0
# A key of a request's state: it came with the secret.
ADMITTED = "admitted"


class Connection(H11Protocol):
    """uvicorn's own with two time limits and a place among the others."""

    def __init__(self, *given: Any, others: Connections[Connection], **named: Any) -> None:
        super().__init__(*given, **named)
        self._others = others
        self._limit: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request with the secret is being answered."""
        return self._answering and bool(self.scope["state"].get(ADMITTED))

    def end(self) -> None:
        """End it at once, whatever was not yet sent."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It was opened."""
        super().connection_made(transport)
        self._end_in(HEAD_SECONDS)
        self._others.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._end_in(None)
        self._others.end(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes, of a head or of a body."""
        if self._limit is None:
            self._end_in(HEAD_SECONDS)
        super().data_received(data)

    def handle_events(self) -> None:
        """What the bytes are."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._answering:
            self._end_in(REQUEST_SECONDS)

    def on_response_complete(self) -> None:
        """It was answered: the next request is waited for, or what is left of a body that was not read."""
        self._end_in(None)
        self._others.begin(self)
        super().on_response_complete()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_in(self, seconds: float | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = None if seconds is None else self.loop.call_later(seconds, self.end)
