"""What the tables tell of one contact: a base to search, pushes to look through, a rejection. Reads only.

Key blobs are opaque here: whether one holds somebody is for `worker/inspection/trace.py` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import overload

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.direction import Direction
from models.tables import CohortBinding, MemberChunk, PushBatch, Rejection
from models.types import BatchState

# On its way, or with an unknown end. What was dropped or superseded is told by the batches that replaced it.
_OPEN = (BatchState.SUBMITTED, BatchState.SENDING, BatchState.PLANNED, BatchState.LOST)
# 400,000 bytes each as a rule; fifty keys each of a destination with synchronous rows.
_AT_ONCE = 20


@dataclass(frozen=True)
class ContactPush:
    """One batch. `folded`: compaction has put it into the base; it is kept, so that its run stays known."""

    run_id: int
    direction: Direction
    state: BatchState
    folded: bool
    pushed_at: datetime | None
    acknowledged_at: datetime | None


class StoredBase(Sequence[bytes]):
    """The parts of the current generation in order, each read when it is asked for."""

    def __init__(self, session: Session, binding_id: int) -> None:
        generation = (
            select(CohortBinding.state_generation).where(CohortBinding.id == binding_id).scalar_subquery()
        )
        self._session = session
        self._parts = session.execute(
            select(MemberChunk.binding_id, MemberChunk.generation, MemberChunk.part)
            .where(MemberChunk.binding_id == binding_id, MemberChunk.generation == generation)
            .order_by(MemberChunk.part)
        ).all()

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        binding_id, generation, part = self._parts[index]
        return self._session.scalars(
            select(MemberChunk.keys).where(
                MemberChunk.binding_id == binding_id,
                MemberChunk.generation == generation,
                MemberChunk.part == part,
            )
        ).one()


def pushes(session: Session, binding_id: int, holds: Callable[[bytes], bool]) -> Iterator[ContactPush]:
    """The batches that were acknowledged or still may be, and whose keys `holds` says yes to; by state, oldest first.

    Of the others nothing but the keys is read: after years a binding has a hundred thousand of them.
    """
    for state in (BatchState.ACKNOWLEDGED, *_OPEN):  # one by one: the index then gives them in order
        rows = session.execute(
            select(PushBatch.id, PushBatch.keys)
            .where(PushBatch.binding_id == binding_id, PushBatch.state == state)
            .order_by(PushBatch.id)
            .execution_options(yield_per=_AT_ONCE)
        )
        for id_ in [id_ for id_, keys in rows if holds(keys)]:
            batch = session.get_one(PushBatch, id_)
            yield ContactPush(
                batch.run_id,
                batch.direction,
                batch.state,
                batch.folded_generation is not None,
                batch.sent_at,
                batch.acknowledged_at,
            )


def rejection(session: Session, binding_id: int, comparison_key: str) -> Rejection | None:
    """The newest word of a refusal of this contact's row that is not settled yet."""
    if "\0" in comparison_key:  # PostgreSQL keeps no such text, so none was recorded
        return None
    return session.scalar(
        select(Rejection)
        .where(Rejection.binding_id == binding_id, Rejection.comparison_key == comparison_key)
        .order_by(Rejection.last_seen.desc())
        .limit(1)
    )
