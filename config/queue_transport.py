"""kombu's Redis transport, for a queue in which somebody else's items may lie.

kombu reads an item within the worker's event loop: one that is no message of Celery's ends the worker, one item a
worker (kombu 5.6, `Channel._brpop_read`). Here such an item is dropped, and the log says so, without its text.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError  # noqa: A004 - kombu knows this one for a lost connection
from redis.retry import Retry

# What reading an item raises that is no JSON object, has no properties, or a body in no encoding (binascii.Error is a
# ValueError).
_NO_MESSAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class _Guarded:
    """A channel that drops what is no message, and does not wait for a silent server longer than it has to.

    kombu connects anew by itself. redis-py (8.0) tries a connection and its first command four times each, one within
    the other: with a server that is frozen a worker was deaf for five minutes.
    """

    def _connparams(self, *given: Any, **options: Any) -> Any:
        found = super()._connparams(*given, **options)  # type: ignore[misc]
        return {**found, "retry": Retry(NoBackoff(), 0)}

    def _brpop_read(self, **options: Any) -> Any:
        delivered = self.qos._delivered  # type: ignore[attr-defined]  # noqa: SLF001 - kombu has no other way to ask
        before = dict(delivered)
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except _NO_MESSAGE as error:
            _tell_dropped(error)
            new = [tag for tag, message in delivered.items() if before.get(tag) is not message]
            if not new:
                raise Empty from None
            # It failed once Celery had it: counted as delivered, maybe as reserved, with a place of the pool. The
            # worker would take no other then; a new connection begins without it.
            for tag in new:
                self.qos.ack(tag)  # type: ignore[attr-defined]
            raise ConnectionError("an item that is no task") from None


class Channel(_Guarded, kombu_redis.Channel):
    """A channel of one server."""


def _tell_dropped(error: Exception) -> None:
    import structlog  # 35 ms of every command that sends a message, and only a worker comes here

    # Its kind alone: a traceback may hold its text.
    structlog.get_logger().error("queue_item_dropped", kind=type(error).__name__)


class _Attempts:
    """Says so at each attempt to connect: kombu and Celery wait in many places until one succeeds."""

    def establish_connection(self) -> Any:
        on_attempt()
        return super().establish_connection()  # type: ignore[misc]


class Transport(_Attempts, kombu_redis.Transport):
    """`redis://`, `rediss://` and `redis+socket://`."""

    Channel = Channel


def on_attempt() -> None:
    """Called at each attempt to connect; a worker puts its own in this place (`worker/liveness.py`)."""


def use() -> None:
    """Let kombu take these for its own."""
    ours = dict.fromkeys(("redis", "rediss"), "Transport")
    TRANSPORT_ALIASES.update({scheme: f"{__name__}:{name}" for scheme, name in ours.items()})
