"""The memory for messages: what is held of bodies, and what working on them takes, in all connections together.

A body takes many times its size while it is read as JSON and made into keys, up to 40 times as much if somebody means
it to. So a large one is worked on alone, and small ones as many at once as there are threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoRoomError(Exception):
    """Memory is spent at the moment."""


def cost(body: bytes | bytearray) -> int:
    """About how many bytes working on a body takes (CPython 3.11 to 3.14).

    Measured: 273 MB and 480 MB for messages of 600,000 UUIDs and of 1,350,000 short ids, where this says 302 and 584.
    """
    return 4 * len(body) + 300 * body.count(b"{") + 60 * body.count(b"[") + 40 * body.count(b",")


class Room:
    """At most `held` bytes of bodies, and `working` bytes (see `cost`) in at most `at_once` turns.

    Whoever waits longer than `seconds` for its turn gets NoRoomError. For one event loop.
    """

    def __init__(self, *, held: int, working: int, at_once: int, seconds: float) -> None:
        self._held_most, self.working, self._at_once, self._seconds = held, working, at_once, seconds
        self._held = self._worked = self._turns = 0
        self._line = asyncio.Lock()  # first come, first served: a large one is not overtaken for ever
        self._changed = asyncio.Event()

    def hold(self, n: int) -> None:
        """So many bytes more, until `release`; NoRoomError."""
        if self._held + n > self._held_most:
            raise NoRoomError
        self._held += n

    def release(self, n: int) -> None:
        """So many bytes that were held are gone."""
        self._held -= n

    @asynccontextmanager
    async def turn(self, n: int) -> AsyncIterator[None]:
        """A turn that costs n bytes, at most `working`; NoRoomError."""
        try:
            async with asyncio.timeout(self._seconds), self._line:
                while self._turns and (self._turns >= self._at_once or self._worked + n > self.working):
                    self._changed.clear()
                    await self._changed.wait()
                self._turns += 1
                self._worked += n
        except TimeoutError:
            raise NoRoomError from None
        try:
            yield
        finally:
            self._turns -= 1
            self._worked -= n
            self._changed.set()
