"""Large changes as many small transactions, because on SQLite everybody waits for a writer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from sqlalchemy import CursorResult, Delete
from sqlalchemy.orm import Session


class Steps(Protocol):
    """Whoever makes transactions: a claimed run."""

    def transaction(self) -> AbstractContextManager[tuple[Session, Any]]:
        """One of them."""


def drop(steps: Steps, some: Delete) -> None:
    """Execute a statement that removes `some` of the rows that nobody reads, until there are none."""
    while True:
        with steps.transaction() as (session, _):
            done = session.execute(some.execution_options(synchronize_session=False))
            if not cast("CursorResult[Any]", done).rowcount:
                return
