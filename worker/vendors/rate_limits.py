"""The vendors' limits, held by all workers together through Redis.

`admit` never waits: it raises RateLimited with the time to come back, and the run leaves its worker slot.
A cool-down is one key per vendor account that a Retry-After sets for everybody; a block opens a circuit that one
trial request closes. When Redis loses its data
the limits start anew; the vendors' own 429 then teaches them.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import cast

import redis
from pyrate_limiter import Duration, Rate, RateItem
from pyrate_limiter.buckets.redis_bucket import LuaScript, RedisBucket
from redis.exceptions import NoScriptError, RedisError

from config.queue_names import KEY_PREFIX
from models.errors import RateLimited, TransientError

# Amplitude, Behavioral Cohorts API: "60 requests per 10 minutes" for requesting one cohort, per project.
AMPLITUDE_REQUESTS = (Rate(60, 10 * Duration.MINUTE),)
# The same page: "4 parallel requests per minute" for requesting one cohort, per project.
AMPLITUDE_PARALLEL_JOBS = 4
# The same page and Dashboard REST API: 5 concurrent requests, shared with all of the project's REST calls.
AMPLITUDE_CONCURRENT = 5
# No per-minute number is published for Marketing Cloud; support is quoted at 2,500 REST calls a minute.
MARKETING_CLOUD_REQUESTS = (Rate(2400, Duration.MINUTE),)


# A blocked account's first pause and the longest, in seconds: 50200 carries no Retry-After, "long back-off (minutes)".
BLOCKED_SECONDS, BLOCKED_MAX_SECONDS = 300.0, 3600.0
BLOCKED = "MC_BLOCKED"
# The least pause after a refusal, doubled with each further one in a row, in seconds.
FLOOR_SECONDS, FLOOR_MAX_SECONDS = 0.5, 300.0
# A trial request may take as long as a connection and an answer may; after that another one may try.
TRIAL_SECONDS = 140.0
KEEP_SECONDS = 5.0
# A circuit that nobody asked about for so long is forgotten.
_FORGET_SECONDS = 86_400
_SLACK_MS = 60_000  # hosts' clocks differ a little


class Limits:
    """One vendor account's limits. `account` identifies it (never a secret); `code` is what a denial says."""

    def __init__(self, connection: redis.Redis, account: str, *, code: str) -> None:
        self._redis = connection
        self._key = f"{KEY_PREFIX}limit:{account}"
        self._code = code
        self._trial = False
        self._refusals = True  # whether there may be some in a row
        self._kept: dict[str, float] = {}  # when, by the monotonic clock, a bucket was cut to its window last

    def admit(self, what: str, rates: tuple[Rate, ...]) -> None:
        """Count one request of the kind `what`, or raise RateLimited."""
        self.check_cooldown()
        with _broker_errors():
            for number in range(2):
                bucket = RedisBucket(list(rates), self._redis, f"{self._key}:{what}", _script())
                if number:
                    self._redis.script_load(LuaScript.PUT_ITEM)
                item = RateItem(uuid.uuid4().hex, int(time.time() * 1000))
                try:
                    if bucket.put(item):
                        self._keep_window(bucket.bucket_key, item.timestamp, rates)
                        return
                except NoScriptError:  # the server was restarted or flushed between init and put
                    continue
                wait = cast("int", bucket.waiting(item))
                raise RateLimited(self._code, retry_after=max(0.5, wait / 1000))

    def _keep_window(self, key: str, now: int, rates: tuple[Rate, ...]) -> None:
        """Of the requests that were counted only a window's are kept, and none for longer than one; `now` in ms.

        Not at each request: the next ones within KEEP_SECONDS change little.
        """
        last = self._kept.get(key)
        if last is not None and time.monotonic() - last < KEEP_SECONDS:
            return
        self._kept[key] = time.monotonic()
        window = max(int(rate.interval) for rate in rates)
        pipe = self._redis.pipeline(transaction=False)
        pipe.zremrangebyscore(key, "-inf", now - window - _SLACK_MS)
        pipe.pexpire(key, window + _SLACK_MS)
        pipe.execute()

    def check_cooldown(self) -> None:
        """Raise RateLimited while the account cools down, or while another's trial request is under way."""
        with _broker_errors():
            code, left, blocked = self._cooling()
            if code is None and not self._trial and blocked:
                if self._redis.set(f"{self._key}:trial", 1, px=int(TRIAL_SECONDS * 1000), nx=True):
                    self._trial = True
                else:  # the answer to the trial tells; looking again costs nothing
                    code, left = BLOCKED, 1.0
        if code is not None:
            raise RateLimited(code, retry_after=left)

    def cool_down(self, seconds: float, code: str) -> None:
        """Hold everybody's requests for `seconds`; a longer cool-down stays."""
        with _broker_errors():
            self._redis.eval(_COOL, 1, f"{self._key}:cool", max(1, int(seconds * 1000)), code)

    def refused(self, seconds: float, code: str) -> float:
        """The vendor asks for a pause of `seconds`: everybody's, at least FLOOR_SECONDS doubled with each in a row.

        A `Retry-After: 0` that never ends must not become requests without end.
        """
        with _broker_errors():
            times = int(str(self._redis.incr(f"{self._key}:refused")))
            self._redis.expire(f"{self._key}:refused", _FORGET_SECONDS)
        self._refusals = True
        seconds = max(seconds, min(FLOOR_MAX_SECONDS, FLOOR_SECONDS * 2.0 ** min(times - 1, 20)))
        self.cool_down(seconds, code)
        return seconds

    def succeeded(self) -> None:
        """The vendor did what was asked: the next refusal is the first one again."""
        self.passed()
        if self._refusals:
            with _broker_errors():
                self._redis.delete(f"{self._key}:refused")

    def block(self) -> float:
        """Open the circuit: nobody asks for minutes, then one trial request does. Seconds until then.

        Each failed trial doubles the pause; what was under way when it opened gets the same answer and counts once.
        """
        with _broker_errors():
            code, left, _ = self._cooling()
            if code == BLOCKED:
                return left
            times = int(str(self._redis.incr(f"{self._key}:blocked")))
            self._redis.expire(f"{self._key}:blocked", _FORGET_SECONDS)
            self._redis.delete(f"{self._key}:trial")
        self._trial = False
        seconds = min(BLOCKED_MAX_SECONDS, BLOCKED_SECONDS * 2.0 ** min(times - 1, 10))
        self.cool_down(seconds, BLOCKED)
        return seconds

    def passed(self) -> None:
        """The vendor answered: if this was the trial request, the circuit is closed."""
        if self._trial:
            self._trial = False
            with _broker_errors():
                self._redis.delete(f"{self._key}:blocked", f"{self._key}:trial")

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

    def _cooling(self) -> tuple[str | None, float, bool]:
        """The code of the cool-down with the seconds left of it, and whether the circuit is open."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.pttl(f"{self._key}:cool")
        pipe.get(f"{self._key}:cool")
        pipe.exists(f"{self._key}:blocked")
        pipe.exists(f"{self._key}:refused")
        left, code, blocked, refused = pipe.execute()
        self._refusals = bool(refused)
        if not isinstance(left, int) or left <= 0:
            return None, 0.0, bool(blocked)
        return code.decode() if isinstance(code, bytes) else self._code, left / 1000, bool(blocked)


@cache
def _script() -> str:
    """The bucket's script by its hash, which a server knows from its first use on."""
    return hashlib.sha1(LuaScript.PUT_ITEM.encode(), usedforsecurity=False).hexdigest()


_COOL = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) end
return 1
"""
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
