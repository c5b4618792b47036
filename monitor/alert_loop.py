"""The watchman: looks what needs a person, keeps the notices, and has every channel told what it is due.

It is called every few seconds with the clock and never raises. It remembers nothing that must survive it but this:
what keeps it from looking can't be noted in the database, so that is told from memory (`monitor/outage.py`).
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from models import schema
from models.database import Database
from models.errors import SyncError
from models.observability import alerts, deliveries, notices
from models.observability.deliveries import ChannelClaim
from monitor.channels import Channel, Sending, channels, tell
from monitor.outage import OutageNotifier

# A look is over within 15 seconds: no step begins after this one, and the database given here answers or fails
# within a few.
BUSY_SECONDS = 7.0
LANDING_SECONDS = 3.0  # most services have answered by then; the others are asked at the next look
TIDY = timedelta(hours=1)

log = structlog.get_logger(__name__)


class AlertLoop:
    """One process's. `db` must have patience (`Database(settings, patience=...)`), or a hanging server holds it."""

    def __init__(self, settings: Settings, db: Database) -> None:
        """SETTINGS_INVALID if a URL can't be used."""
        self._db = db
        self._channels = channels(settings, db.keyring)
        self._pause = timedelta(seconds=settings.notify_min_seconds)
        self._sent: dict[str, tuple[Sending, ChannelClaim]] = {}  # by the channel's digest: on their way
        self._blindness = OutageNotifier(self._channels)
        self._tidied: datetime | None = None

    def look(self, now: datetime, schedulers: int | None) -> None:
        """Note what needs a person at `now`, and tell it; `schedulers` are alive (none: the queue is away)."""
        hindrance = None
        try:
            self._look(now, schedulers, until=time.monotonic() + BUSY_SECONDS)
        except SyncError as error:
            hindrance = error
        except Exception as error:  # noqa: BLE001 - whatever it is, a person is told, and the next look tries again
            hindrance = SyncError("INTERNAL", kind=type(error).__name__)
            hindrance.__cause__ = error
        self._blindness.look(hindrance, now)

    def _look(self, now: datetime, schedulers: int | None, *, until: float) -> None:
        self._settle(now)
        with self._db.read() as session:
            schema.check(session)
            found = alerts.current(session, now, schedulers=schedulers)
        began, ended = notices.note(self._db, found, now)
        if began or ended:
            log.info("notices", began=began, ended=ended)
        for channel in self._channels:
            if channel.digest not in self._sent and time.monotonic() < until:
                self._tell(channel, now)
        landed = time.monotonic() + LANDING_SECONDS
        for sending, _ in self._sent.values():
            sending.arrived(landed - time.monotonic())
        if time.monotonic() < until:
            self._settle(now)
            self._tidy(now)

    def _tell(self, channel: Channel, now: datetime) -> None:
        with self._db.read() as session:
            due = deliveries.due(session, channel.digest, now)
        held = deliveries.claim(self._db, channel.digest, channel.name, now) if due else None
        if held is not None:
            self._sent[channel.digest] = tell(channel, held.message), held

    def _settle(self, now: datetime) -> None:
        """Write down what became of the messages that have landed."""
        for key, (sending, held) in list(self._sent.items()):
            arrived, name = sending.arrived(), sending.channel.name
            if arrived is None:
                continue
            if arrived:
                deliveries.delivered(self._db, held, now, pause=self._pause)
                log.info("notified", channel=name, needs=held.message.needs, over=held.message.over)
            elif refused := deliveries.refused(self._db, held, now):
                log.warning(
                    "notification_failed", code="NOTIFY_FAILED", channel=name, attempts=refused.attempts
                )
                if refused.given_up:
                    log.error("notices_dropped", code="NOTIFY_FAILED", channel=name, notices=refused.given_up)
            del self._sent[key]

    def _tidy(self, now: datetime) -> None:
        if self._tidied is None:
            deliveries.keep_only(self._db, [channel.digest for channel in self._channels])
        if self._tidied is None or now - self._tidied >= TIDY:
            notices.forget_old(self._db, now)
            self._tidied = now
