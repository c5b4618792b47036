"""Generations of parts: blobs of keys, of which one generation counts, of a list or of a binding's state.

A new generation is stored, and counts, with one commit. What it replaces goes after that, a little at a time, because
on SQLite everybody waits for a writer. A kill in between leaves rows that nobody reads, and the next generation takes
them along.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from sqlalchemy import CursorResult, Delete
from sqlalchemy.orm import Session

from models.tables import CohortListPart, MemberChunk


class Steps(Protocol):
    """Whoever makes transactions: a claimed run."""

    def transaction(self) -> AbstractContextManager[tuple[Session, Any]]:
        """One of them."""


def store(session: Session, parts: Iterable[CohortListPart | MemberChunk]) -> int:
    """Store the parts; how many members they have."""
    members = 0
    for part in parts:
        members += part.n
        session.add(part)
        session.flush()
        session.expunge(part)  # tens of blobs of megabytes must not pile up in the session
    return members


def drop(steps: Steps, some: Delete) -> None:
    """Execute a statement that removes `some` of the rows that nobody reads, until there are none."""
    while True:
        with steps.transaction() as (session, _):
            done = session.execute(some.execution_options(synchronize_session=False))
            if not cast("CursorResult[Any]", done).rowcount:
                return
