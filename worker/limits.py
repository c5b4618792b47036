"""The vendors' limits, held by all workers together through Redis.

`admit` never waits: it raises RateLimited with the time to come back, and the run leaves its worker slot.
A cool-down is one key per vendor account that a Retry-After sets for everybody. When Redis loses its data
the limits start anew; the vendors' own 429 then teaches them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
from pyrate_limiter import Duration, Rate, RateItem
from pyrate_limiter.buckets.redis_bucket import RedisBucket
from redis.exceptions import NoScriptError, RedisError

from config.queue import KEY_PREFIX
from models.errors import RateLimited, TransientError

# Amplitude, Behavioral Cohorts API: "60 requests per 10 minutes" for requesting one cohort, per project.
AMPLITUDE_REQUESTS = (Rate(60, 10 * Duration.MINUTE),)
# The same page: "4 parallel requests per minute" for requesting one cohort, per project.
AMPLITUDE_PARALLEL_JOBS = 4
# The same page and Dashboard REST API: 5 concurrent requests, shared with all of the project's REST calls.
AMPLITUDE_CONCURRENT = 5
# No per-minute number is published for Marketing Cloud; support is quoted at 2,500 REST calls a minute.
MARKETING_CLOUD_REQUESTS = (Rate(2400, Duration.MINUTE),)


class Limits:
    """One vendor account's limits. `account` identifies it (never a secret); `code` is what a denial says."""

    def __init__(self, connection: redis.Redis, account: str, *, code: str, cooling_code: str = "") -> None:
        self._redis = connection
        self._key = f"{KEY_PREFIX}limit:{account}"
        self._code = code
        self._cooling_code = cooling_code or code

    def admit(self, what: str, rates: tuple[Rate, ...]) -> None:
        """Count one request of the kind `what`, or raise RateLimited."""
        with _broker_errors():
            self.check_cooldown()
            for _ in range(2):
                bucket = RedisBucket.init(list(rates), self._redis, f"{self._key}:{what}")
                item = RateItem(uuid.uuid4().hex, int(time.time() * 1000))
                try:
                    if bucket.put(item):
                        return
                except NoScriptError:  # the server was restarted or flushed between init and put
                    continue
                wait = bucket.waiting(item)
                raise RateLimited(self._code, retry_after=max(0.5, int(wait) / 1000))

    def check_cooldown(self) -> None:
        """Raise RateLimited while the vendor's account cools down."""
        left = self._redis.pttl(f"{self._key}:cool")
        if isinstance(left, int) and left > 0:
            blocked = self._redis.get(f"{self._key}:cool")
            code = blocked.decode() if isinstance(blocked, bytes) else self._cooling_code
            raise RateLimited(code, retry_after=left / 1000)

    def cool_down(self, seconds: float, code: str) -> None:
        """Hold everybody's requests for `seconds`; a longer cool-down stays."""
        key, milliseconds = f"{self._key}:cool", max(1, int(seconds * 1000))
        with _broker_errors():
            if not self._redis.set(key, code, px=milliseconds, nx=True):
                self._redis.pexpire(key, milliseconds, gt=True)

    @contextmanager
    def at_once(self, most: int, *, longest: float) -> Iterator[None]:
        """At most `most` of these blocks at once, across all workers; one older than `longest` s is forgotten."""
        key, token, now = f"{self._key}:at-once", uuid.uuid4().hex, time.time()
        with _broker_errors():
            entered = self._redis.eval(_ENTER, 1, key, now, longest, most, token)
        if not entered:
            raise RateLimited(self._code, retry_after=1.0)
        try:
            yield
        finally:
            with suppress(RedisError):  # it is forgotten by its age
                self._redis.zrem(key, token)


_ENTER = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[4])
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]))
return 1
"""


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise TransientError("BROKER_UNREACHABLE") from error
