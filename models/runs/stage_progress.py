"""How far a claim is within its stage, for a person who watches: a note at the queue's server that ends by itself.

It is no truth: losing it changes nothing, and one of another claim is not shown.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.queue_names import KEY_PREFIX

if TYPE_CHECKING:
    from redis import Redis

SECONDS = 10  # it ends so long after the last word


@dataclass(frozen=True)
class StageProgress:
    """What is being done, and how much of how much, in `unit`."""

    doing: str
    done: int
    total: int
    unit: str = "rows"


def tell(redis: Redis, run_id: int, fence: int, progress: StageProgress) -> None:
    """Note it; a server that is away hears nothing."""
    from redis.exceptions import RedisError

    said = [fence, progress.doing, progress.done, progress.total, progress.unit]
    with suppress(RedisError):
        redis.set(_key(run_id), json.dumps(said), ex=SECONDS)


def heard(redis: Redis, run_id: int, fence: int) -> StageProgress | None:
    """What the claim with this fence has told last, if it was a moment ago."""
    from redis.exceptions import RedisError

    with suppress(RedisError, ValueError, TypeError):
        stored = redis.get(_key(run_id))
        if isinstance(stored, bytes | str):
            teller, *said = json.loads(stored)
            return StageProgress(*said) if teller == fence else None
    return None


def _key(run_id: int) -> str:
    return f"{KEY_PREFIX}doing:{run_id}"
