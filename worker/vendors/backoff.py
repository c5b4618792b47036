"""How long to wait before the next attempt. Arithmetic alone: the random generator is an argument."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 64  # 2.0 ** 1024 is an OverflowError; long before, any delay has reached its maximum


def retry_delay(attempt: int, base: float, maximum: float, rng: random.Random) -> float:
    """Seconds to wait after the failed `attempt` (1 is the first): half fixed, half chance.

    Doubles from `base` up to `maximum`. The fixed half keeps a vendor in trouble from being asked again at
    once, the other spreads workers that failed together.
    """
    doublings = min(max(0, attempt - 1), _MOST_DOUBLINGS)
    ceiling = max(0.0, min(maximum, base * 2.0**doublings))
    return ceiling / 2 + rng.uniform(0, ceiling / 2)
