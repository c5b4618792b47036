"""The monitor's process: a look every few seconds, and the pages that machines read.

A database or a queue that is away is what this process is there to show: it is waited for, never a reason to leave.
A look that fails is tried again with the next one. Any number of these processes may run at once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry

from config import log_limit
from config.graceful_stop import GracefulStop
from config.logging import configure
from config.pulse import STALE_SECONDS as STUCK_SECONDS
from config.pulse import Pulse
from config.settings import Settings
from models import broker, schema
from models.database import Database
from models.errors import SyncError
from monitor.alert_loop import AlertLoop
from monitor.counters import EndedRunCounters
from monitor.metrics import Collector
from monitor.server import Server

LOOK_SECONDS = 10.0
STALE_SECONDS = 60.0  # so long without a look that worked, and this process calls itself ill
# Together less than a scrape may take.
DATABASE_SECONDS = 4.0
QUEUE_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Monitor:
    """Looks of one process. `clock` says what time it is; a test may bring its own."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._db = Database(settings, patience=DATABASE_SECONDS)
        self._redis = broker.redis_client(settings.redis, seconds=QUEUE_SECONDS)
        self._tally = EndedRunCounters()
        self._watchman = AlertLoop(settings, self._db)
        self._pulse = Pulse(settings.data_dir, "monitor")
        self._round = time.monotonic()
        self._code: str | None = None  # of the last look
        self._worked = 0.0
        self.registry = CollectorRegistry()
        self.registry.register(Collector(self._db, self._redis, self._tally, clock=clock))

    def run(self, stop: GracefulStop) -> None:
        """Look until told to leave."""
        while not stop.asked:
            self._pulse.beat()
            self._round = time.monotonic()
            self.look()
            stop.wait(LOOK_SECONDS - (time.monotonic() - self._round))

    def look(self) -> None:
        """One look. What keeps it from seeing is said by the watchman, in the log and to people."""
        told = broker.ask(self._redis)
        try:
            with self._db.read() as session:
                schema.check(session)
                self._tally.look(session)
        except SyncError as error:
            self._code = error.code
        except Exception:
            self._code = "INTERNAL"
            log.exception("look_failed", code=self._code)
        else:
            self._code, self._worked = None, time.monotonic()
        self._watchman.look(self._clock(), None if told is None else len(told.schedulers))

    def live(self) -> bool:
        """Whether the loop goes round: the same as the sign of life says, for `/livez`."""
        return time.monotonic() - self._round < STUCK_SECONDS

    def ill(self) -> str | None:
        """The code of what keeps this process from its work; none if a look worked within the last minute."""
        if self._worked and time.monotonic() - self._worked < STALE_SECONDS:
            return None
        return self._code or ("INTERNAL" if self._worked else "DATABASE_UNREACHABLE")

    def close(self) -> None:
        """Close what is open."""
        self._pulse.stop()
        self._redis.close()
        self._db.dispose()


def serve(settings: Settings, listening: socket.socket) -> int:
    """Watch, and serve on the open port, until SIGTERM or SIGINT."""
    configure(settings, "monitor")
    log_limit.limit("uvicorn.error", "asyncio")
    stop = GracefulStop()
    stop.install()
    monitor = Monitor(settings)
    server = Server(listening, monitor.registry, monitor.ill, monitor.live)
    server.start()
    log.info("monitor_started")
    monitor.run(stop)
    server.stop()
    monitor.close()
    log.info("monitor_stopped")
    return 0
