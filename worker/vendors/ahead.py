"""One call made in the background while its caller does something else."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Begun at once. Whoever is interrupted need not wait for it: its thread keeps no process from its end."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answer: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        Thread(target=copy_context().run, args=(self._do,), name="ahead", daemon=True).start()

    def result(self) -> T:
        """What it gave or raised; waits for it. To be asked once."""
        value, error = self._answer.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value] # a call that did not fail has one

    def _do(self) -> None:
        try:
            self._answer.put((self._call(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._answer.put((None, error))
