"""One call made in the background while its caller does something else."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

P = TypeVar("P")
T = TypeVar("T")


class Ahead(Generic[T]):
    """`call(prepare())`: prepared where it is made, called in the background.

    Whoever is interrupted need not wait for it: its thread keeps no process from its end. What needs many turns of the
    interpreter lock is prepared: a thread would wait for each while its caller parses.
    """

    def __init__(self, prepare: Callable[[], P], call: Callable[[P], T]) -> None:
        self._answer: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        try:
            prepared = prepare()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._answer.put((None, error))
            return
        does = partial(self._do, partial(call, prepared))
        Thread(target=copy_context().run, args=(does,), name="ahead", daemon=True).start()

    def result(self) -> T:
        """What it gave or raised; waits for it. To be asked once."""
        value, error = self._answer.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value] # a call that did not fail has one

    def _do(self, call: Callable[[], T]) -> None:
        try:
            self._answer.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._answer.put((None, error))
