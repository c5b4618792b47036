"""Generations of parts: blobs of keys, of which one generation counts, of a list or of a binding's state.

A new generation is stored, and counts, with one commit. What it replaces goes after that, a part at a time, because on
SQLite everybody waits for a writer. A kill in between leaves parts that nobody reads, and the next generation takes
them along.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import ColumnElement, delete, select
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


def drop(steps: Steps, table: type[CohortListPart | MemberChunk], replaced: ColumnElement[bool]) -> None:
    """Remove the parts that are `replaced`, each in a transaction of its own."""
    while True:
        with steps.transaction() as (session, _):
            one = session.execute(select(table.generation, table.part).where(replaced).limit(1)).one_or_none()
            if one is None:
                return
            session.execute(
                delete(table)
                .where(replaced, table.generation == one.generation, table.part == one.part)
                .execution_options(synchronize_session=False)
            )
