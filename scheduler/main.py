"""The scheduler's process: tick, publish, sleep, until it is told to leave.

It holds nothing that must survive it. A database or a broker that is away is waited for; a signal lets the
tick in hand finish. Any number of these processes may run at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from sqlalchemy import event

from config.graceful_stop import GracefulStop
from config.logging import configure
from config.pulse import BEAT_SECONDS, Pulse
from config.settings import Settings
from models import key_check, schema
from models.database import Database
from models.errors import ConfigurationError, SyncError, TransientError
from models.runs import due_work, slots
from models.runs.slots import SlotRules
from scheduler.health_log import HealthLog
from scheduler.publish import STALE_EMPTY, Published, Publisher
from scheduler.retention import Broom
from scheduler.tick import Ticked, look_at_lists, tick

LONGEST_PAUSE_SECONDS = 30
# No transaction of a tick takes so long, unless the database says nothing at all: the tick fails, and the loop goes
# round. Shorter than what a probe takes for the silence of a stuck process (`config.pulse.STALE_SECONDS`).
DATABASE_SECONDS = 30.0
# Between two looks whether a held run's list has changed: nobody waits for it to the second.
LISTS_SECONDS = 5.0
LONGEST_SLEEP_SECONDS = 1.0  # a sleep that a worker may end is not ended by a signal

log = structlog.get_logger(__name__)


class Loop:
    """Ticks of one process. `clock` says what time it is; a test may bring its own."""

    def __init__(
        self,
        db: Database,
        publisher: Publisher,
        tick_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._db = db
        self._publisher = publisher
        self._tick_seconds = tick_seconds
        self._clock = clock
        self._failures = 0
        self._lists_at = 0.0
        self._next_wake: datetime | None = None
        self._slot_rules = SlotRules.of(db.settings)
        self._watch = HealthLog()
        self.pulse = Pulse(db.settings.data_dir, "scheduler")
        self._broom = Broom()
        # A tick of many transactions is no silence.
        event.listen(db.engine, "checkin", lambda *_: self.pulse.beat())

    def run(self, stop: GracefulStop) -> None:
        """Tick until told to leave. A full tick is followed by the next at once, a failed one by a pause."""
        while not stop.asked:
            self.pulse.beat()
            started = time.monotonic()
            try:
                more = self.once()
            except Exception as error:  # noqa: BLE001 - a scheduler that leaves serves nobody; what failed is tried again
                self._pause(stop, self._failed(error))
                continue
            self._failures = 0
            if not more:
                self._sleep(stop, self._tick_seconds - (time.monotonic() - started))

    def once(self) -> bool:
        """One tick; whether there is more to do at once."""
        started = time.monotonic()
        now = self._clock()
        with self._db.read() as session:
            todo = due_work.look(session, now, STALE_EMPTY)
        self._next_wake = todo.next_wake
        ticked, published, failure = Ticked(), Published(), None
        if started >= self._lists_at:
            self._lists_at = started + LISTS_SECONDS
            look_at_lists(self._db, now)
        if todo.decide:
            try:
                ticked = tick(self._db, now, todo=todo)
            except TransientError:
                raise
            except Exception as error:  # noqa: BLE001 - what is queued already must be woken all the same
                failure = error
        if todo.asleep:
            self._wake(now)
        if todo.decide or todo.publish:
            published = self._publisher.publish(self._db, now)
        if self._publisher.beat_due:
            self._db.require_writable()  # a scheduler that can't write is no sign of life
            self._publisher.beat(now)
        self._watch.look(self._db, now)
        self._broom.sweep(self._db, now)
        if failure is not None:
            raise failure
        _log(ticked, published, time.monotonic() - started)
        return ticked.more or published.more

    def _wake(self, now: datetime) -> None:
        """Wake whoever sleeps beside a free slot: those who freed it do that, unless they were killed."""
        with self._db.read() as session:
            if not slots.idle(session, self._slot_rules, now=now):
                return
        with self._db.write() as session:
            woken = slots.wake_all(session, self._slot_rules, now=now)
        self._publisher.publish_woken(self._db, woken, now)

    def _sleep(self, stop: GracefulStop, seconds: float) -> None:
        """Until the next tick, or the moment at which a run wakes, or until a worker says that one wakes sooner."""
        if self._next_wake is not None:
            seconds = min(seconds, (self._next_wake - self._clock()).total_seconds())
        if stop.asked or seconds <= 0:
            return
        if not self._publisher.sleep(min(seconds, LONGEST_SLEEP_SECONDS)):
            stop.wait(min(seconds, LONGEST_PAUSE_SECONDS))

    def _pause(self, stop: GracefulStop, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not stop.asked and (left := end - time.monotonic()) > 0:
            self.pulse.beat()
            stop.wait(min(left, BEAT_SECONDS))

    def _failed(self, error: Exception) -> float:
        """Log it; the seconds to wait, doubling."""
        self._failures += 1
        pause: float = min(LONGEST_PAUSE_SECONDS, self._tick_seconds * 2 ** min(self._failures, 10))
        if isinstance(error, SyncError):
            log.error("tick_failed", code=error.code, message=error.message, pause_seconds=pause)
        else:
            log.error("tick_failed", code="INTERNAL", pause_seconds=pause, exc_info=error)
        return pause


def main(settings: Settings) -> int:
    """Run a scheduler until SIGTERM or SIGINT; 1 if it can't start, else 0."""
    configure(settings, "scheduler")
    stop = GracefulStop()
    stop.install()
    try:
        db = Database(settings, deadline=DATABASE_SECONDS)
        with suppress(TransientError):  # a database that is away now is waited for in the loop
            schema.require_current(db)
            key_check.prove(db)
    except ConfigurationError as error:
        log.error("scheduler_not_started", code=error.code, message=error.message, remedy=error.remedy)  # noqa: TRY400
        return 1
    publisher = Publisher(settings)
    log.info("scheduler_started", tick_seconds=settings.tick_seconds, database=db.dialect)
    loop = Loop(db, publisher, settings.tick_seconds)
    loop.run(stop)
    loop.pulse.stop()
    publisher.close()
    db.dispose()
    log.info("scheduler_stopped")
    return 0


def _log(ticked: Ticked, published: Published, seconds: float) -> None:
    """The canonical line, for a tick that did something."""
    if not (ticked.anything or published.messages):
        return
    log.info(
        "tick",
        bindings=ticked.bindings,
        queued=ticked.queued,
        deferred=ticked.deferred,
        skipped=ticked.skipped,
        missed=ticked.missed,
        paused=ticked.paused,
        started=ticked.started,
        retried=ticked.retried,
        published=published.messages,
        more=ticked.more or published.more,
        ms=round(seconds * 1000, 1),
    )
