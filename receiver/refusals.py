"""What a receiver refused, by cohort: a message that is not delivered later leaves its list in doubt.

Noted after the answer was decided, and never in its way: a database that is away keeps nothing, so what could not be
noted waits in memory, bounded, for the next message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.database import Database
from models.errors import SyncError
from models.membership import webhooks

log = structlog.get_logger()

WAITING = 1_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused message; what could not be read of it is empty."""

    project_id: int
    cohort_id: str
    message_id: str
    code: str
    at: datetime


class Refusals:
    """Those of one process."""

    def __init__(self, db: Database, writer: Callable[[], AbstractContextManager[Any]]) -> None:
        self._db, self._writer = db, writer
        self._waiting: deque[Refusal] = deque(maxlen=WAITING)

    def note(self, refusal: Refusal) -> None:
        """Store it, or keep it."""
        self._waiting.append(refusal)
        self.flush()

    def flush(self) -> None:
        """Store what waits; what can't be stored goes on waiting."""
        while self._waiting:
            try:
                refusal = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                with self._writer(), self._db.write() as session:
                    webhooks.note_refusal(
                        session,
                        refusal.project_id,
                        cohort_id=refusal.cohort_id,
                        message_id=refusal.message_id,
                        code=refusal.code,
                        now=refusal.at,
                    )
            except (SyncError, SQLAlchemyError) as error:
                self._waiting.append(refusal)
                log.warning("refusal_not_noted", kind=type(error).__name__)
                return
