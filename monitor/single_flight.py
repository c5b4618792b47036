"""A question that is asked once at a time: who comes meanwhile shares the answer.

So a crowd of scrapes costs one look, and a server that hangs holds one thread, however often somebody asks. Who
asks says for how long he waits; the thread goes on, and is the kernel's to end with the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """What `ask` returns or raises, in a thread of its own."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._current: Future[Answer] | None = None

    def begin(self) -> Future[Answer]:
        """The answer to come: of the question that is open, or of a new one."""
        with self._lock:
            if self._current is None or self._current.done():
                self._current = Future()
                threading.Thread(target=self._run, args=(self._current,), daemon=True).start()
            return self._current

    def _run(self, answer: Future[Answer]) -> None:
        try:
            answer.set_result(self._ask())
        except BaseException as error:  # noqa: BLE001 - it is the asker's
            answer.set_exception(error)
