"""A binding's members as Marketing Cloud acknowledged them: chunks of a generation, plus the batches since.

Blobs are opaque here. Compaction stores a new generation (`generations.py` beside this) and takes the batches out of
the log in one transaction, so a kill at any point leaves one consistent state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from models.direction import Direction
from models.membership import generations
from models.membership.generations import Steps
from models.tables import CohortBinding, MemberChunk, PushBatch
from models.types import BatchState, literal_word


def iter_chunks(session: Session, binding_id: int) -> Iterator[bytes]:
    """The parts of the current generation, in order."""
    yield from session.scalars(
        select(MemberChunk.keys)
        .where(MemberChunk.binding_id == binding_id, MemberChunk.generation == _current(binding_id))
        .order_by(MemberChunk.part)
        .execution_options(yield_per=1)
    )


def iter_deltas(session: Session, binding_id: int) -> Iterator[tuple[Direction, bytes]]:
    """The acknowledged batches that no generation holds yet, in the order they were acknowledged in."""
    rows = session.execute(
        select(PushBatch.direction, PushBatch.keys)
        .where(_in_log(binding_id))
        .order_by(PushBatch.id)
        .execution_options(yield_per=1)
    )
    yield from rows


def sizes(session: Session, binding_id: int) -> tuple[int, int, int]:
    """Members in the base, changes in the log, batches in the log."""
    base = session.scalar(
        select(func.coalesce(func.sum(MemberChunk.n), 0)).where(
            MemberChunk.binding_id == binding_id, MemberChunk.generation == _current(binding_id)
        )
    )
    changes, batches = session.execute(
        select(func.coalesce(func.sum(PushBatch.n), 0), func.count()).where(_in_log(binding_id))
    ).one()
    return int(base or 0), int(changes), int(batches)


def logged_since(session: Session, binding_id: int) -> datetime | None:
    """When the oldest batch was acknowledged that no generation holds yet; none if there is none."""
    return session.scalar(
        select(PushBatch.acknowledged_at).where(_in_log(binding_id)).order_by(PushBatch.id).limit(1)
    )


def logged(session: Session, binding_id: int) -> list[int]:
    """The batches in the log, by their ids."""
    return list(session.scalars(select(PushBatch.id).where(_in_log(binding_id))))


def replace_base(
    session: Session, binding_id: int, parts: Iterable[tuple[int, bytes]], folded: Sequence[int]
) -> int:
    """Make (rows, keys) parts, of the base and the batches `folded`, the new generation; the member count."""
    binding = session.get_one(CohortBinding, binding_id)
    generation = binding.state_generation + 1
    members = generations.store(
        session,
        (
            MemberChunk(binding_id=binding_id, generation=generation, part=part, n=n, keys=keys)
            for part, (n, keys) in enumerate(parts)
        ),
    )
    for start in range(0, len(folded), 500):
        session.execute(
            update(PushBatch)
            .where(PushBatch.id.in_(folded[start : start + 500]))
            .values(folded_generation=generation)
            .execution_options(synchronize_session=False)
        )
    binding.state_generation = generation
    counted(binding, members)
    return members


def drop_replaced(steps: Steps, binding_id: int) -> None:
    """Remove the parts that a newer generation has replaced."""
    replaced = (MemberChunk.binding_id == binding_id) & (MemberChunk.generation != _current(binding_id))
    one = select(MemberChunk.generation, MemberChunk.part).where(replaced).limit(1)
    place = tuple_(MemberChunk.generation, MemberChunk.part)
    generations.drop(steps, delete(MemberChunk).where(replaced, place.in_(one)))


def _current(binding_id: int) -> ScalarSelect[int]:
    return select(CohortBinding.state_generation).where(CohortBinding.id == binding_id).scalar_subquery()


def counted(binding: CohortBinding, members: int) -> None:
    """So many members were just found in the stored state."""
    binding.member_count, binding.member_count_rough = members, False


def _in_log(binding_id: int) -> ColumnElement[bool]:
    return (
        (PushBatch.binding_id == binding_id)
        & (PushBatch.state == literal_word(BatchState.ACKNOWLEDGED))
        & PushBatch.folded_generation.is_(None)
    )
