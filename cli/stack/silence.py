"""How long a process has shown no sign of life: whoever supervises it starts it again if that is too long.

It is the time in which this process was there to see a sign. A machine that slept, or a container that was frozen,
leaves every sign old, and no process is stuck. No clock of the day is asked, so one that is set changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from config import pulse

# At most so much of the time between two looks counts: nobody was there for the rest of it.
LOOK_SECONDS, MOST_SECONDS = 1.0, 5.0
# Without a first sign: a process that starts may wait for a server before it gives one, each time for a bounded time.
START_SECONDS = 300.0


def _always() -> bool:
    return True


@dataclass
class Silence:
    """Of one process after another, of one program.

    `sign` takes a process id and gives something that differs from one sign to the next, or None before the first one.
    `can_be_seen` is asked before a process is taken for stuck: where nobody can give a sign, its lack says nothing.
    """

    sign: Callable[[int], object]
    can_be_seen: Callable[[], bool] = _always
    _last: object = None
    _looked: float = 0.0
    _quiet: float = 0.0

    def begin(self, now: float) -> None:
        """A process starts. `now`: seconds of a clock that is never set."""
        self._last, self._looked, self._quiet = None, now, 0.0

    def too_long(self, pid: int, now: float) -> bool:
        """Whether the process is stuck. May be asked at any rate."""
        elapsed = now - self._looked
        if elapsed < LOOK_SECONDS:
            return False
        self._looked = now
        sign = self.sign(pid)
        if sign != self._last:
            self._last, self._quiet = sign, 0.0
            return False
        self._quiet += min(elapsed, MOST_SECONDS)
        if self._quiet <= (START_SECONDS if sign is None else pulse.STALE_SECONDS):
            return False
        if not self.can_be_seen():
            self._quiet = 0.0
            return False
        return True
