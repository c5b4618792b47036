"""The scheduler looks whether the work gets done, and warns in its log."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from models.database import Database
from models.observability import health

EVERY = timedelta(seconds=30)

log = structlog.get_logger(__name__)


class HealthLog:
    """The eyes of one scheduler process."""

    def __init__(self) -> None:
        self._looked: datetime | None = None

    def look(self, db: Database, now: datetime) -> None:
        """Warn of what is wrong; at most every half minute, and not before this process has had time to work."""
        if self._looked is None:
            self._looked = now
        if now - self._looked < EVERY:
            return
        self._looked = now
        with db.read() as session:
            found = health.facts(session, now, schedulers=1)
        for about, error in health.alarms(found):
            log.warning("work_stalled", about=about, code=error.code, message=error.message)
