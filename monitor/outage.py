"""What keeps the watchman from looking is told from memory: it can't be noted in a database that is away.

Every monitor tells it once and tells when it is over; one that is started anew may tell it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from models.errors import SyncError
from models.observability.deliveries import RETRY_FIRST, RETRY_LAST, Notification, NotificationLine
from monitor.channels import Channel, Sending, tell

STOOD = timedelta(minutes=1)
LANDING_SECONDS = 3.0

log = structlog.get_logger(__name__)


class OutageNotifier:
    """Since when nothing can be seen, and who was told of it."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._voices = [_ChannelState(channel) for channel in channels]
        self._line: NotificationLine | None = None

    def look(self, hindrance: SyncError | None, now: datetime) -> None:
        """Take note of what keeps the watchman from looking at `now`, or that nothing does."""
        line = self._line
        if hindrance is None:
            if line is not None and line.ended_at is None:
                self._line = NotificationLine(
                    line.about, line.code, line.message, line.remedy, line.began_at, now
                )
                log.info("looks_recovered", code=line.code)
        elif line is None or line.ended_at is not None or line.code != hindrance.code:
            # Without its detail: a driver's words may name more than everybody should read.
            plain = SyncError(hindrance.code, **hindrance.context)
            about = "database" if plain.code.startswith("DATABASE_") else "monitor"
            self._line = NotificationLine(about, plain.code, plain.message, plain.remedy, now)
            cause = hindrance.__cause__ if plain.code == "INTERNAL" else None
            log.error("looks_failing", code=plain.code, message=plain.message, exc_info=cause)
        if self._line is not None:
            self._tell(self._line, now)

    def _tell(self, line: NotificationLine, now: datetime) -> None:
        stands = line.ended_at is None
        if stands and now - line.began_at < STOOD:
            return
        message = Notification(1, 0, [line]) if stands else Notification(0, 1, [line])
        for voice in self._voices:
            voice.say(message, line.code if stands else "", now)
        landed = time.monotonic() + LANDING_SECONDS
        for voice in self._voices:
            voice.settle(now, seconds=landed - time.monotonic())


class _ChannelState:
    """A channel, and the code it was told last: "" that nothing is wrong, none if that is not known."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._heard: str | None = ""
        self._sent: tuple[Sending, str] | None = None
        self._attempts = 0
        self._next_at: datetime | None = None

    def say(self, message: Notification, code: str, now: datetime) -> None:
        """Send the message, unless it was heard, is on its way, or was refused a moment ago."""
        self.settle(now)
        if self._sent is None and self._heard != code and (self._next_at is None or self._next_at <= now):
            self._sent = tell(self._channel, message), code

    def settle(self, now: datetime, *, seconds: float = 0.0) -> None:
        """Take note of what became of the message that was sent."""
        if self._sent is None:
            return
        sending, code = self._sent
        arrived = sending.arrived(seconds)
        if arrived is None:
            return
        self._sent = None
        if arrived:
            self._heard, self._attempts, self._next_at = code, 0, None
        else:
            self._heard = None
            self._next_at = now + min(RETRY_LAST, RETRY_FIRST * 2 ** min(self._attempts, 10))
            self._attempts += 1
            log.warning(
                "notification_failed",
                code="NOTIFY_FAILED",
                channel=self._channel.name,
                attempts=self._attempts,
            )
