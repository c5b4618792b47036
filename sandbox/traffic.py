"""What was asked of the sandbox: one line a request, kept in memory.

Never the rows themselves: a log is read by people and pasted into reports. Small bodies are kept aside for
`?bodies=1`, those of the token endpoint never.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

_LINES = 200_000
_BODIES = 500
_BODY_BYTES = 65_536


@dataclass
class Traffic:
    """The log."""

    lines: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_LINES))
    bodies: dict[int, str] = field(default_factory=dict)
    seq: int = 0

    def add(self, line: dict[str, Any], body: bytes) -> None:
        """One more request."""
        self.seq += 1
        self.lines.append({"seq": self.seq, **line})
        if body and len(body) <= _BODY_BYTES and not line["path"].startswith("/v2/token"):
            self.bodies[self.seq] = body.decode("utf-8", "replace")
            while len(self.bodies) > _BODIES:
                del self.bodies[next(iter(self.bodies))]

    def select(
        self, *, path: str = "", vendor: str = "", method: str = "", since: int = 0, bodies: bool = False
    ) -> list[dict[str, Any]]:
        """The lines that match, oldest first."""
        chosen = [
            line
            for line in self.lines
            if path in line["path"]
            and vendor in {"", line["vendor"]}
            and method.upper() in {"", line["method"]}
            and line["seq"] > since
        ]
        if bodies:
            return [line | {"body": self.bodies.get(line["seq"])} for line in chosen]
        return chosen

    def clear(self) -> None:
        """Forget everything and count anew."""
        self.lines.clear()
        self.bodies.clear()
        self.seq = 0
