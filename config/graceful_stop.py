"""How a process with a loop of its own learns that it is to leave."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from types import FrameType


class GracefulStop:
    """Whether this process was told to leave.

    A pipe, not an Event: setting one from a signal handler can deadlock with the wait that it interrupts.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.asked = False

    def install(self) -> None:
        """Leave on SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def wait(self, seconds: float | None = None) -> None:
        """Sleep so long, or for ever, unless or until told to leave."""
        if not self.asked:
            select.select([self._read], [], [], None if seconds is None else max(0.0, seconds))

    def ask(self) -> None:
        """Tell it to leave."""
        self.asked = True
        with suppress(BlockingIOError):  # full: it was told often enough
            os.write(self._write, b"x")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()
