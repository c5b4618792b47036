"""The scheduler removes what has been kept long enough: a pass an hour, one small step a tick."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from models.data_protection import retention
from models.data_protection.retention import Cursor, Retention
from models.database import Database

EVERY = timedelta(hours=1)

log = structlog.get_logger(__name__)


class Broom:
    """The passes of one scheduler process. Several may sweep at once: what is gone is gone."""

    def __init__(self) -> None:
        self._due: datetime | None = None
        self._cursor: Cursor | None = None
        self._removed = 0

    def sweep(self, db: Database, now: datetime) -> None:
        """One step of a pass, if one is under way or due."""
        if self._cursor is None:
            if self._due is not None and now < self._due:
                return
            self._cursor, self._due, self._removed = Cursor(), now + EVERY, 0
        kept = Retention.at(db.settings, now)
        with db.read() as session:
            found, following = retention.look(session, kept, self._cursor)
        if found.gone:
            with db.write() as session:
                retention.remove(session, self._cursor, found)
            self._removed += len(found.gone)
        self._cursor = following
        if following is None and self._removed:
            log.info("retention", removed=self._removed)
