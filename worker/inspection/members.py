"""The members of a binding as its state has them, for whoever compares with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.database import Database, one_state
from models.membership import state
from models.tables import CohortBinding
from worker.membership.compaction import compact


def of_state(db: Database, binding: CohortBinding, workdir: Path) -> Iterator[tuple[int, bytes]]:
    """(keys, blob) of the members that Marketing Cloud acknowledged, sorted by comparison key."""
    with db.read() as session:
        one_state(session)
        yield from compact(
            state.iter_chunks(session, binding.id), state.iter_deltas(session, binding.id), workdir=workdir
        )
