"""The month's downloads of each source, made and foreseen. A forecast of many bindings takes seconds, so it is kept.

A page never waits for one: it shows the last, or that there is none yet.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from cli.config_file import quota
from models.database import Database
from models.errors import SyncError
from models.membership import snapshots
from models.naming import every
from models.tables import AmplitudeProject, CohortBinding
from scheduler.forecast import downloads, next_month, planned

KEPT = timedelta(minutes=10)


@dataclass(frozen=True)
class Quota:
    """A source's downloads of this month. `to_come` none: the forecast is being made."""

    name: str
    spent: int
    allowed: int
    to_come: int | None

    @property
    def short(self) -> bool:
        """Whether the month's downloads are spent, or will be."""
        return self.spent + (self.to_come or 0) > self.allowed or self.spent >= self.allowed

    def share(self, downloads: int, before: int = 0) -> int:
        """The percents of the quota that they are, within what those `before` leave of it."""
        whole = max(1, self.allowed)
        return round(100 * min(downloads, max(0, whole - before)) / whole)


class Forecasts:
    """The last forecast, made anew in a thread when it is old."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._made_at: datetime | None = None
        self._to_come: dict[str, int] = {}
        self._thread: threading.Thread | None = None

    def of_sources(self, session: Session, sources: list[AmplitudeProject], now: datetime) -> list[Quota]:
        """Each source as it is known at `now`."""
        self._renew(now)
        return [
            Quota(one.name, *snapshots.quota(session, one, now=now), to_come=self._to_come.get(one.name))
            for one in sources
        ]

    def _renew(self, now: datetime) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            if self._made_at is not None and now - self._made_at < KEPT:
                return
            self._thread = threading.Thread(target=self._make, args=(now,), name="forecast", daemon=True)
            self._thread.start()
        self._thread.join(0.1)  # an installation of a few bindings is foreseen at once

    def _make(self, now: datetime) -> None:
        try:
            with self._db.read() as session:
                bindings = [one for one in map(planned, every(session, CohortBinding)) if one is not None]
                names = [one.name for one in every(session, AmplitudeProject)]
        except SyncError:
            return
        runs = quota.foreseen(bindings, now=now, until=next_month(now) - timedelta(seconds=1))
        month = f"{now:%Y-%m}"
        costs = downloads(runs)
        self._to_come = {name: costs[name, month] for name in names}
        self._made_at = now
