"""When to look at a job: soon after its end and seldom before it, by how long the data extension's jobs take.

What was learned is kept in Redis for all workers, by the number of rows; it is a hint, and losing it costs a few looks.
Only ends that were seen about when they happened teach: after a kill the time that nobody looked is no job's length.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import redis
from redis.exceptions import RedisError

from config.queue_names import KEY_PREFIX

# The first look at a job where nothing is known: jobs of one row took 0.5-2 s, of thousands 2-20 s, in the worst case
# minutes.
FIRST_POLL_SECONDS = 0.25
POLL_MIN_SECONDS = 0.01
POLL_MAX_SECONDS = 15.0
# Between two looks: at first this part of what jobs take, then half of the time by which this one takes longer; never
# more than this part of its own age, which is all there is to go by where nothing is known.
STEP, STEP_OF_AGE = 1 / 32, 1 / 4
# A look that comes so much later than planned, as a part of the job's age, tells nothing about the job's length.
TOO_LATE = 1 / 4
# As if so many jobs in a row had ended before the first look.
UNKNOWN = 5
KEEP_SECONDS = 90 * 86_400


@dataclass(frozen=True)
class Pace:
    """How long jobs take, in seconds, and how often in a row one had ended before the first look."""

    seconds: float | None = None
    early: int = 0

    def first(self) -> float:
        """How old a new job is when it is looked at first."""
        return _within(FIRST_POLL_SECONDS if self.seconds is None else self.seconds)

    def again(self, age: float) -> float:
        """Seconds to the next look at a job that is so old and has not ended: a fraction of its length."""
        if self.seconds is not None and age < self.seconds:
            return _within(self.seconds - age)
        step = age * STEP_OF_AGE
        if self.seconds is not None:
            step = min(step, max(self.seconds * STEP, (age - self.seconds) / 2))
        return _within(step)

    def learned(self, age: float, looks: int, *, late: float) -> Pace:
        """After a job was found ended at that age, `looks` looks before, `late` seconds after the planned time."""
        if late > max(2 * POLL_MIN_SECONDS, TOO_LATE * age):
            return self
        age -= max(0.0, late)  # else each delay of ours would become the vendor's
        if looks == 0:  # it ended at some time before: look sooner, and much sooner if nothing else is known
            early = UNKNOWN if self.seconds is None else self.early
            return Pace(age * (1 - min(0.5, 0.02 * 2**early)), early + 1)
        if self.seconds is None:
            return Pace(age * 0.9)
        took = (
            age - max(self.seconds * STEP, (age - self.seconds) / 3) / 2
        )  # between this look and the one before
        return Pace(self.seconds + (took - self.seconds) / 2)


def _within(seconds: float) -> float:
    return min(POLL_MAX_SECONDS, max(POLL_MIN_SECONDS, seconds))


class Paces:
    """The paces of one data extension."""

    def __init__(self, connection: redis.Redis, data_extension_id: str) -> None:
        self._redis = connection
        self._key = f"{KEY_PREFIX}pace:{data_extension_id}"
        self._known: dict[str, Pace] = {}
        with suppress(RedisError):
            for rows, value in connection.hgetall(self._key).items():
                seconds, _, early = _text(value).partition(" ")
                with suppress(ValueError):
                    self._known[_text(rows)] = Pace(float(seconds), int(early))

    def of(self, rows: int) -> Pace:
        """The pace of jobs with about so many rows."""
        return self._known.get(_magnitude(rows), Pace())

    def learn(self, rows: int, age: float, looks: int, *, late: float) -> None:
        """See `Pace.learned`."""
        before = self.of(rows)
        after = before.learned(age, looks, late=late)
        if after == before or after.seconds is None:
            return
        self._known[_magnitude(rows)] = after = replace(after, early=min(after.early, 9))
        with suppress(RedisError):
            self._redis.hset(self._key, _magnitude(rows), f"{after.seconds:.4f} {after.early}")
            self._redis.expire(self._key, KEEP_SECONDS)


def _magnitude(rows: int) -> str:
    return str(len(str(rows)))


def _text(stored: bytes | str) -> str:
    return stored.decode() if isinstance(stored, bytes) else stored
