"""Which way a member went: its own module, so that the diff need not load a database library for two words."""

from __future__ import annotations

from enum import StrEnum


class Direction(StrEnum):
    """Entering writes true, leaving writes false."""

    ENTER = "enter"
    EXIT = "exit"
