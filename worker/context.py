"""What a unit of work needs from its process: settings, database, Redis, queue, clock, randomness.

Made once a process (connections must not cross a fork) and handed down as an argument.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import redis
from celery import Celery

from config.queue import make_app
from config.settings import Settings
from models.database import Database


def utc_now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


@dataclass
class Context:
    """The outside world of one process."""

    settings: Settings
    db: Database
    redis: redis.Redis
    app: Celery
    clock: Callable[[], datetime] = utc_now
    rng: random.Random = field(default_factory=random.SystemRandom)


def open_context(settings: Settings, app: Celery | None = None) -> Context:
    """Connections are opened on first use, so this never fails for a server that is away."""
    return Context(
        settings=settings,
        db=Database(settings),
        redis=redis.Redis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5),
        app=app or make_app(settings),
    )
