"""How many connections a server keeps: a new one is never refused for one that only waits.

Whoever opens connections and says nothing on them must not keep others out. A client that means it sends its request
at once, so the connection that has waited longest is the one to close.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

MOST = 512
# asyncio and tornado accept so many in a row before any of them is looked at.
ACCEPTED_IN_A_ROW = 64

T = TypeVar("T", bound=Hashable)


def most() -> int:
    """As many as this process may have open files for, beside those of its own work."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if files == resource.RLIM_INFINITY else max(16, min(MOST, files // 2))


class Connections(Generic[T]):
    """The open connections of a server, the one that has waited longest first.

    `close` ends one; `busy` says of one that it must not be closed for another.
    """

    def __init__(
        self, limit: int, *, close: Callable[[T], object], busy: Callable[[T], bool] = lambda _one: False
    ) -> None:
        self._limit, self._close, self._busy = limit, close, busy
        self._lock = threading.Lock()
        self._open: dict[T, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, one: T) -> None:
        """One that was opened, or waits for its next request from now on. Where all others are busy it is closed."""
        with self._lock:
            self._open.pop(one, None)
            self._open[one] = None
            over = None
            if len(self._open) > self._limit:
                over = next((other for other in self._open if not self._busy(other)), one)
                del self._open[over]
        if over is not None:
            with suppress(OSError):  # it has just gone
                self._close(over)

    def end(self, one: T) -> None:
        """One that was closed."""
        with self._lock:
            self._open.pop(one, None)
