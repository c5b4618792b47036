"""kombu's Redis transport, for a queue in which somebody else's items may lie.

kombu reads an item within the worker's event loop: one that is no message of Celery's ends the worker, one item a
worker (kombu 5.6, `Channel._brpop_read`). Here such an item is dropped, and the log says so, without its text.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

log = structlog.get_logger()

# What reading an item raises that is no JSON object, has no properties, or a body in no encoding (binascii.Error is a
# ValueError).
_NO_MESSAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class _Guarded:
    """A channel that drops what is no message."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except _NO_MESSAGE as error:
            log.error("queue_item_dropped", kind=type(error).__name__)  # noqa: TRY400 - a traceback may hold its text
            raise Empty from None


class Channel(_Guarded, kombu_redis.Channel):
    """A channel of one server."""


class SentinelChannel(_Guarded, kombu_redis.SentinelChannel):
    """A channel of servers that a Sentinel watches."""


class Transport(kombu_redis.Transport):
    """`redis://`, `rediss://` and `redis+socket://`."""

    Channel = Channel


class SentinelTransport(kombu_redis.SentinelTransport):
    """`sentinel://`."""

    Channel = SentinelChannel


def use() -> None:
    """Let kombu take these for its own."""
    ours = {"redis": "Transport", "rediss": "Transport", "sentinel": "SentinelTransport"}
    TRANSPORT_ALIASES.update({scheme: f"{__name__}:{name}" for scheme, name in ours.items()})
