"""A binding's members as Marketing Cloud acknowledged them: chunks of a generation, plus the batches since.

Blobs are opaque here. Compaction stores a new generation (`generations.py` beside this), which counts from one commit
on. After that the batches in it are taken out of the log, the oldest first. A kill in between leaves batches that are
both in the base and in the log: applied once more, in their order, they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from models.database.steps import Steps, step
from models.direction import Direction
from models.membership import generations
from models.membership.generations import Ahead, Counting
from models.tables import CohortBinding, MemberChunk, PushBatch
from models.types import BatchState, literal_word

BATCHES_AT_ONCE = 10  # of up to 400,000 bytes each as a rule


def iter_chunks(session: Session, binding_id: int) -> Iterator[bytes]:
    """The parts of the current generation, in order."""
    yield from session.scalars(
        select(MemberChunk.keys)
        .where(generations.of_binding(binding_id).current_parts)
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
            generations.of_binding(binding_id).current_parts
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
    """The ids of the batches in the log, in its order."""
    return list(session.scalars(select(PushBatch.id).where(_in_log(binding_id)).order_by(PushBatch.id)))


def replace_base(
    session: Session, binding_id: int, ahead: Ahead, rest: Iterable[tuple[int, bytes]]
) -> Counting | None:
    """Let (rows, keys) parts, stored ahead but for the `rest`, be the binding's members; none if they can't count."""
    counting = generations.complete(session, generations.of_binding(binding_id), ahead, rest)
    if counting is not None:
        binding = session.get_one(CohortBinding, binding_id)
        binding.state_generation = counting.generation
        counted(binding, counting.members)
    return counting


def take_from_log(steps: Steps, folded: Sequence[int], generation: int) -> None:
    """Note that the generation holds these batches, given in the order of the log, a few to a commit.

    SQLite writes a batch anew for that, keys and all.
    """
    for start in range(0, len(folded), BATCHES_AT_ONCE):
        with step(steps) as (session, _):
            session.execute(
                update(PushBatch)
                .where(PushBatch.id.in_(folded[start : start + BATCHES_AT_ONCE]))
                .values(folded_generation=generation)
                .execution_options(synchronize_session=False)
            )


def drop_replaced(steps: Steps, binding_id: int) -> None:
    """Remove the parts that do not count: nobody but the binding's one unfinished run stores any."""
    generations.drop_others(steps, generations.of_binding(binding_id))


def counted(binding: CohortBinding, members: int) -> None:
    """So many members were just found in the stored state."""
    binding.member_count, binding.member_count_rough = members, False


def _in_log(binding_id: int) -> ColumnElement[bool]:
    return (
        (PushBatch.binding_id == binding_id)
        & (PushBatch.state == literal_word(BatchState.ACKNOWLEDGED))
        & PushBatch.folded_generation.is_(None)
    )
