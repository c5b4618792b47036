"""Rows that Marketing Cloud refused, with its reasons: a list for a person. No sync reads it.

A rejection belongs to the last run that met it, and is settled when a run of the binding ends without meeting it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models import vendor_text
from models.contact_keys.comparison import comparison_key
from models.database.bulk import insert_into
from models.tables import Rejection, SyncRun


@dataclass(frozen=True)
class RejectedRow:
    """A row that Marketing Cloud refused: its key, the comparison key, and the vendor's reason."""

    key: str
    comparison_key: str
    code: str
    message: str

    @classmethod
    def of(cls, key: str, code: object, message: str) -> RejectedRow:
        """A row refused in the vendor's words, of which nobody's key is kept."""
        return cls(key, comparison_key(key), vendor_text.code(code), vendor_text.masked(message, key))


def record(session: Session, run: SyncRun, direction: str, rows: list[RejectedRow], now: datetime) -> None:
    """Note the run's refused rows of one direction; one that is known already was met once more."""
    dialect = session.get_bind().dialect.name
    for start in range(0, len(rows), 500):
        statement = insert_into(Rejection, dialect).values(
            [
                {
                    "binding_id": run.binding_id,
                    "run_id": run.id,
                    "direction": direction,
                    "code": row.code,
                    "message": row.message,
                    "key": row.key,
                    "comparison_key": row.comparison_key,
                    "first_seen": now,
                    "last_seen": now,
                    "count": 1,
                }
                for row in rows[start : start + 500]
            ]
        )
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["binding_id", "comparison_key", "direction"],
                set_={
                    "last_seen": now,
                    "count": Rejection.count + 1,
                    "run_id": statement.excluded.run_id,
                    "code": statement.excluded.code,
                    "message": statement.excluded.message,
                },
            )
        )


def of_run(session: Session, run_id: int) -> Iterator[Rejection]:
    """The rows that this run was the last to meet, by reason; a few at a time in memory."""
    query = select(Rejection).where(Rejection.run_id == run_id)
    ordered = query.order_by(Rejection.direction, Rejection.code, Rejection.comparison_key)
    yield from session.scalars(ordered.execution_options(yield_per=1_000))


def forget_settled(session: Session, run: SyncRun) -> None:
    """Rejections of the binding that this finished run did not meet again are settled."""
    session.execute(
        delete(Rejection).where(Rejection.binding_id == run.binding_id, Rejection.run_id != run.id)
    )
