"""A file that somebody names. A pipe or a device is read like any, and never waited for without end."""

from __future__ import annotations

import os
from pathlib import Path


def read(path: Path, most: int) -> bytes:
    """At most so many bytes of it; OSError. A pipe that nobody writes into is empty."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as file:
        os.set_blocking(number, True)  # opening it waits for no writer; reading waits for the one there is
        return file.read(most)
