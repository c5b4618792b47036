"""What the database says needs a worker becomes messages; and the sign of life of a scheduler.

A broker that is down is an ordinary state: rows stay unpublished, and it is asked again a little later. Nothing
here decides what is due (`scheduler/tick.py`), and no message carries more than a run's id.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import structlog
from redis.client import PubSub
from redis.exceptions import RedisError

from config.queue import make_app, publishing
from config.queue_names import KEY_PREFIX, NEXT_QUEUE, NUDGES, QUEUE, WAKE_QUEUE, QueueUnavailableError
from config.settings import Settings
from models.broker import redis_client
from models.database import Database
from models.errors import SyncError
from models.observability.health import HEARTBEATS
from models.runs import outbox
from models.runs.slots import Woken
from models.types import Stage

# A published run that nobody has claimed is published again. With an empty queue nobody holds its message any
# more (it was flushed, or died with a worker); with a backlog it most likely waits its turn.
STALE_EMPTY = timedelta(seconds=10)
STALE_BACKLOG = timedelta(seconds=120)

AT_ONCE = 1000  # messages a tick: some 0.4 s
# Messages on the queue of those that wake: what the workers do in a second or two. More would only be a line that
# every run stands in again and again; the database keeps the order of those left over.
WAKING_AT_ONCE = 100
MARKED_AT_ONCE = 200  # so many rows wait for STALE_EMPTY if this process dies between mark and message
BROKER_SECONDS = 2
LONGEST_SILENCE_SECONDS = 15

HEARTBEAT_EVERY_SECONDS = 5
HEARTBEAT_TTL_SECONDS = 30

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """How many messages were sent. `more`: there was no room for all, so go on at once."""

    messages: int = 0
    more: bool = False


class Publisher:
    """The door to the broker of one scheduler process."""

    def __init__(self, settings: Settings) -> None:
        self._app = make_app(settings)
        self._redis = redis_client(settings.redis, seconds=BROKER_SECONDS)
        self._nudges: PubSub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        self._failures = 0
        self._ask_again = 0.0
        self._beat_again = 0.0
        self._heartbeat = f"{HEARTBEATS}{socket.gethostname()}:{os.getpid()}"

    def publish(self, db: Database, now: datetime, *, limit: int = AT_ONCE) -> Published:
        """Publish what needs it at `now`, the oldest first; nothing while the broker is silent."""
        lengths = self._backlogs()
        if lengths is None:
            return Published()
        fresh, waking = lengths
        stale = STALE_BACKLOG if fresh else STALE_EMPTY
        with db.read() as session:
            wanted = outbox.unclaimed(session, now, stale, limit)
        sent = self._publish(db, wanted, QUEUE, now, stale)
        if self._failures:
            return Published(sent)
        stale = STALE_BACKLOG if waking else STALE_EMPTY
        room = min(limit, WAKING_AT_ONCE - waking)
        if room > 0:
            with db.read() as session:
                awake = outbox.waking(session, now, stale, room)
            sent += self._publish(db, awake, WAKE_QUEUE, now, stale)
        return Published(sent, more=len(wanted) == limit)

    def publish_woken(self, db: Database, woken: Sequence[Woken], now: datetime) -> None:
        """Send the messages of runs that were given a slot at `now`."""
        names = {one.run_id: one.binding for one in woken}
        runs = [(one.run_id, Stage.PUSH) for one in woken]
        sent = self._send(runs, names)
        if sent < len(runs):
            self._give_back(db, [run for run, _ in runs[sent:]], now)

    def sleep(self, seconds: float) -> bool:
        """Sleep so long, or until a worker says that a run wakes sooner; False at once if nobody could say so."""
        if time.monotonic() < self._ask_again:
            return False
        try:
            if not self._nudges.subscribed:
                self._nudges.subscribe(NUDGES)
            self._nudges.get_message(ignore_subscribe_messages=True, timeout=seconds)
        except (RedisError, OSError) as error:
            self._unreachable(error)
            return False
        return True

    def _publish(
        self, db: Database, wanted: dict[int, bool], queue: str, now: datetime, stale: timedelta
    ) -> int:
        """How many messages were sent, until the broker took no more.

        `queue` gets those of runs that start. It also gets those that nobody took from `next`: workers of release 0.1
        do not read that one.
        """
        runs, sent = list(wanted), 0
        for start in range(0, len(runs), MARKED_AT_ONCE):
            with db.write() as session:
                mine = outbox.mark_published(session, runs[start : start + MARKED_AT_ONCE], now, stale)
                names = outbox.names(session, [run for run, _ in mine])
            queues = {run: queue for run, stage in mine if stage == Stage.SNAPSHOT or wanted[run]}
            reached = self._send(mine, names, queues)
            sent += reached
            if reached < len(mine):
                self._give_back(db, [run for run, _ in mine[reached:]], now)
                break
        return sent

    @property
    def beat_due(self) -> bool:
        """Whether it is time for the next sign of life."""
        return time.monotonic() >= max(self._beat_again, self._ask_again)

    def beat(self, now: datetime) -> None:
        """Show in the broker that this scheduler ticks, every few seconds; a dead one's key expires."""
        if not self.beat_due:
            return
        self._beat_again = time.monotonic() + HEARTBEAT_EVERY_SECONDS
        try:
            self._redis.set(self._heartbeat, now.isoformat(), ex=HEARTBEAT_TTL_SECONDS)
        except (RedisError, OSError) as error:
            self._unreachable(error)
        else:
            self._reached()

    def close(self) -> None:
        """Take the sign of life away and close what is open."""
        with suppress(RedisError, OSError):
            self._redis.delete(self._heartbeat)
        self._nudges.close()
        self._redis.close()
        self._app.close()

    def _backlogs(self) -> tuple[int, int] | None:
        """The messages of new runs, and of those that wake; None if the broker is silent, or was a moment ago."""
        if time.monotonic() < self._ask_again:
            return None
        try:
            fresh, *waking = (
                self._redis.llen(KEY_PREFIX + queue) for queue in (QUEUE, WAKE_QUEUE, NEXT_QUEUE)
            )
        except (RedisError, OSError) as error:
            self._unreachable(error)
            return None
        self._reached()
        return fresh, sum(waking)

    def _send(
        self,
        runs: Sequence[tuple[int, Stage]],
        names: Mapping[int, str],
        queues: Mapping[int, str] = MappingProxyType({}),
    ) -> int:
        """How many of them the broker took, from the first; each goes to its stage's queue if it has no other."""
        sent = 0
        try:
            with publishing(self._app) as send:
                for run_id, stage in runs:
                    send(run_id, stage, binding=names.get(run_id), queue=queues.get(run_id))
                    sent += 1
        except QueueUnavailableError as error:
            self._unreachable(error)
        return sent

    def _give_back(self, db: Database, runs: list[int], marked: datetime) -> None:
        try:
            with db.write() as session:
                outbox.unmark_published(session, runs, marked)
        except SyncError as error:
            # They keep their mark: as if this process had died, STALE_EMPTY is the delay.
            log.warning("unpublish_failed", runs=len(runs), code=error.code)

    def _reached(self) -> None:
        if self._failures:
            log.info("broker_recovered")
            self._failures = 0

    def _unreachable(self, error: Exception) -> None:
        self._failures += 1
        silence = min(LONGEST_SILENCE_SECONDS, 2 ** min(self._failures - 1, 4))
        self._ask_again = time.monotonic() + silence
        log.warning(
            "broker_unreachable",
            code="BROKER_UNREACHABLE",
            kind=type(error).__name__,
            ask_again_seconds=silence,
        )
