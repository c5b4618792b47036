"""Large changes as many small transactions, because on SQLite everybody waits for a writer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

from sqlalchemy import CursorResult, Delete
from sqlalchemy.orm import Session

PAUSE_SECONDS = 0.01


class Steps(Protocol):
    """Whoever makes transactions: a claimed run."""

    def transaction(self) -> AbstractContextManager[tuple[Session, Any]]:
        """One of them."""


@contextmanager
def step(steps: Steps) -> Iterator[tuple[Session, Any]]:
    """One of many transactions; after it others, who look now and then for SQLite's writer, have a moment to write."""
    with steps.transaction() as (session, of):
        yield session, of
    if session.get_bind().dialect.name == "sqlite":
        time.sleep(PAUSE_SECONDS)


def drop(steps: Steps, some: Delete) -> None:
    """Execute a statement that removes `some` of the rows that nobody reads, until there are none."""
    while True:
        with step(steps) as (session, _):
            done = session.execute(some.execution_options(synchronize_session=False))
            if not cast("CursorResult[Any]", done).rowcount:
                return
