"""How a command ends."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The exit codes; scripts rely on them."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # usage or bad input: nothing was changed
    PARTIAL = 3  # finished, with rejected rows
    HELD = 4
    CHECK_FAILED = 5
    INTERRUPTED = 130


# What a run's state means for whoever waited for it; any other state is no end.
OF_STATE = {
    "succeeded": Code.DONE,
    "partial": Code.PARTIAL,
    "held": Code.HELD,
    "failed": Code.FAILED,
    "cancelled": Code.FAILED,
    "skipped": Code.FAILED,
}
