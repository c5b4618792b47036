"""What strangers can make a process log is bounded: so many lines of a kind a minute, then only their number."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

LINES = 10
SECONDS = 60.0
KINDS = 100


@dataclass(slots=True)
class _Kind:
    since: float
    lines: int = 0
    left_out: int = 0


class LogLimit(logging.Filter):
    """Lets the first lines of each kind through; the first one after a minute says how many were left out.

    A kind is a logger and its line's event, or its text before values are put into it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        now, event = self._clock(), _event(record)
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        kind = self._kinds.setdefault((record.name, event), _Kind(now))
        if now - kind.since >= SECONDS:
            if kind.left_out:
                _say(record, kind.left_out)
            kind.since, kind.lines, kind.left_out = now, 0, 0
        kind.lines += 1
        if kind.lines <= LINES:
            return True
        kind.left_out += 1
        return False


def _event(record: logging.LogRecord) -> str:
    said = record.msg
    return f"{said.get('event')} {said.get('code')}" if isinstance(said, dict) else str(said)[:200]


def _say(record: logging.LogRecord, left_out: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**record.msg, "left_out": left_out}
    else:
        record.msg, record.args = f"{record.getMessage()} ({left_out} such lines were left out)", None


def limit(*loggers: str) -> None:
    """Limit what these loggers write, by their full names."""
    noise = LogLimit()
    for name in loggers:
        logging.getLogger(name).addFilter(noise)
