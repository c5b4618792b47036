"""What the queue's server tells: which schedulers tick, and how many messages wait.

Read here for everybody who shows it. A server that is away is an answer like another, and so is one that takes no
messages: a replica, or one whose memory is full, answers every question and is no queue.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from config.queue_names import KEY_PREFIX, QUEUES
from config.settings import Settings
from models.errors import ConfigurationError
from models.observability.health import HEARTBEATS

if TYPE_CHECKING:
    from redis import Redis

# Written at each look: the server takes what is written, or it is no queue.
PROBE = f"{KEY_PREFIX}probe"
PROBE_SECONDS = 60


@dataclass(frozen=True)
class BrokerState:
    """The schedulers that tick, each with the instant of its last sign of life, and the messages of each queue."""

    schedulers: dict[str, str]
    messages: dict[str, int]


def redis_client(url: str, *, seconds: float) -> Redis:
    """A client of the queue's server that gives up after `seconds`; nothing is connected yet."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        return Redis.from_url(
            url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise ConfigurationError(
            "SETTINGS_INVALID",
            mistakes="COHORT_SYNC_REDIS_URL: use redis://:PASSWORD@HOST:PORT/0, rediss:// or unix:///PATH",
        ) from None


def ask(client: Redis) -> BrokerState | None:
    """What it tells now; none if it does not answer or takes no messages."""
    from redis.exceptions import RedisError

    try:
        keys = sorted(key.decode() for key in client.scan_iter(f"{HEARTBEATS}*", count=1000))
        values: list[Any] = client.mget(keys) if keys else []
        with client.pipeline() as at_once:  # as Celery uses several keys; a cluster refuses this
            at_once.set(PROBE, b"", ex=PROBE_SECONDS)
            for queue in QUEUES:
                at_once.llen(KEY_PREFIX + queue)
            messages = dict(zip(QUEUES, map(int, at_once.execute()[1:]), strict=True))
    except (RedisError, OSError):
        return None
    schedulers = {
        key.removeprefix(HEARTBEATS): value.decode()
        for key, value in zip(keys, values, strict=True)
        if value is not None
    }
    return BrokerState(schedulers, messages)


def tells(settings: Settings, *, seconds: float) -> BrokerState | None:
    """What the queue's server tells whoever asks it once; none as in `ask`."""
    if settings.embedded_broker and not os.access(settings.valkey_socket, os.F_OK):
        return None  # known without redis-py, whose import takes 40 ms
    with redis_client(settings.redis, seconds=seconds) as client:
        return ask(client)


def refuse_cluster(client: Redis) -> None:
    """BROKER_CLUSTER if the server is one of a cluster; one that does not answer is waited for elsewhere."""
    from redis.exceptions import RedisError

    try:
        clustered = client.info("cluster").get("cluster_enabled")
    except (RedisError, OSError):
        return
    if clustered:
        raise ConfigurationError("BROKER_CLUSTER")
