"""The sandbox's time.

Tokens, links, quotas and jobs all ask this clock, so that a test can let seven days pass in no time
(`POST /_sandbox/clock`). It only ever goes forward, and it never sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Wall time plus whatever the door has added."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._wall() + self.offset

    def advance(self, seconds: float) -> float:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("the clock only goes forward")
        self.offset += seconds
        return self.now()


def utc(moment: float) -> datetime:
    """The moment as a date in UTC."""
    return datetime.fromtimestamp(moment, tz=UTC)


def iso(moment: float) -> str:
    """ISO 8601 in UTC with a zone, for the door."""
    return utc(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def vendor_date(moment: float) -> str:
    """Marketing Cloud's dates carry no zone and two or three fractional digits [OFF sample]."""
    text = utc(moment).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return text.removesuffix("0")
