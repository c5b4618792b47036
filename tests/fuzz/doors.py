"""The doors by name, and how one is tried."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import command_line, messages, vendors

Door = tuple[st.SearchStrategy[Any], Callable[[Any], None]]

DOORS: dict[str, Callable[[Path], AbstractContextManager[Door]]] = {
    "arguments": command_line.arguments_door,
    "config files": command_line.config_files_door,
    "cohort files": command_line.cohort_files_door,
    "receiver": messages.receiver_door,
    "queue": messages.queue_door,
    "amplitude": vendors.amplitude_door,
    "marketing cloud": vendors.marketing_cloud_door,
}


def tried(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], *, examples: int, seed: int) -> int:
    """Try so many examples; the number of those that were. The smallest one that breaks a rule is in the error."""
    count = 0

    @_seeded(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(example: Any) -> None:
        nonlocal count
        count += 1
        check(example)

    one()
    return count


def _seeded(number: int) -> Callable[[Any], Any]:
    return seed(number)
