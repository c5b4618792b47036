"""The kinds of acts by their names: what the counts say, and what a seed chooses from."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

# Upon a storm (`tests.chaos.storm.Storm`), with a random generator of its own, so that the same seed makes the same
# choices whatever the product did meanwhile. False where there was nothing to do it to.
Act = Callable[[Any, random.Random], bool | None]
ACTS: dict[str, Act] = {}
_ONLY_ON: dict[str, str] = {}


def act(name: str, *, only_on: str = "") -> Callable[[Act], Act]:
    """Under this name in the counts."""

    def enter(function: Act) -> Act:
        ACTS[name] = function
        if only_on:
            _ONLY_ON[name] = only_on
        return function

    return enter


def kinds(database: str) -> list[str]:
    """The names of the acts there are on a database, in a fixed order."""
    return sorted(name for name in ACTS if _ONLY_ON.get(name, database) == database)
