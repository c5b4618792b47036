"""The kinds of acts by their names: what the counts say, and what a seed chooses from."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

# Upon a storm (`tests.chaos.storm.Storm`), with a random generator of its own, so that the same seed makes the same
# choices whatever the product did meanwhile. False where there was nothing to do it to.
Act = Callable[[Any, random.Random], bool | None]
ACTS: dict[str, Act] = {}
_ONLY_IF: dict[str, Callable[[Any], bool]] = {}


def act(
    name: str, *, only_on: str = "", only_if: Callable[[Any], bool] = lambda _storm: True
) -> Callable[[Act], Act]:
    """Under this name in the counts; on one kind of database alone, or where the machine allows it."""

    def enter(function: Act) -> Act:
        ACTS[name] = function
        _ONLY_IF[name] = lambda storm: only_on in {"", storm.database} and only_if(storm)
        return function

    return enter


def kinds(storm: Any) -> list[str]:
    """The names of the acts there are for a storm, in a fixed order."""
    return sorted(name for name in ACTS if _ONLY_IF[name](storm))


def impossible(storm: Any) -> list[str]:
    """The names of those that this machine or this database does not allow."""
    return sorted(ACTS.keys() - kinds(storm))
