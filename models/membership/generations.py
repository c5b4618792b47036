"""Generations of parts: blobs of keys, of which one generation counts, of a list or of a binding's state.

On SQLite everybody waits for a writer, and a large cohort has tens of megabytes of parts. So a new generation is stored
ahead, a part to a commit, and nobody reads it. One short commit lets it count; one that is small is stored by it. What
it replaces goes after that, a little at a time.

Numbers of generations only rise. A generation above the one that counts is being stored, or was left by a kill; one
below it never counts again. So whoever stores ahead, and finds that another generation with a higher number counts by
now, begins again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, insert, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.database.steps import Steps, drop, step
from models.secrets import Keyring
from models.tables import CohortBinding, CohortList, CohortListPart, MemberChunk


@dataclass(frozen=True)
class Owner:
    """Whose parts they are, and where its current generation is written."""

    id: int
    part: type[CohortListPart | MemberChunk]
    column: InstrumentedAttribute[int]
    pointer: InstrumentedAttribute[int]

    @property
    def parts(self) -> ColumnElement[bool]:
        """The condition for its parts, of all generations."""
        return self.column == self.id

    @property
    def current(self) -> ScalarSelect[int]:
        """Its current generation, within a statement."""
        return select(self.pointer).where(self.pointer.class_.id == self.id).scalar_subquery()

    @property
    def current_parts(self) -> ColumnElement[bool]:
        """The condition for the parts that count."""
        return self.parts & (self.part.generation == self.current)

    def hold(self, session: Session) -> int | None:
        """Its current generation, which nobody else changes until this transaction ends; none if the owner is gone.

        "FOR NO KEY UPDATE": messages still come in meanwhile.
        """
        mine = self.pointer.class_.id == self.id
        return session.scalar(select(self.pointer).where(mine).with_for_update(key_share=True))


def of_list(list_id: int) -> Owner:
    """A list's."""
    return Owner(list_id, CohortListPart, CohortListPart.list_id, CohortList.generation)


def of_binding(binding_id: int) -> Owner:
    """Those of a binding's state."""
    return Owner(binding_id, MemberChunk, MemberChunk.binding_id, CohortBinding.state_generation)


@dataclass(frozen=True)
class Ahead:
    """Parts that were stored ahead; without any the generation has no number yet."""

    generation: int | None = None
    parts: int = 0


@dataclass(frozen=True)
class Counting:
    """A whole generation, and its members."""

    generation: int
    members: int


def store_ahead(
    steps: Steps, owner: Owner, parts: Iterable[tuple[int, bytes]], known: Forgotten, keyring: Keyring
) -> Ahead | None:
    """Store (rows, keys) parts, which are without those `known` to be forgotten, as a generation that does not count.

    None if they can't count any more: somebody was forgotten, another generation counts by now, or the owner is gone.
    """
    ahead = Ahead()
    for n, keys in parts:
        with step(steps) as (session, _):
            if forgotten.enforced(session, keyring) != known:
                return None
            generation = _next(session, owner, ahead)
            if generation is None:
                return None
            _store(session, owner, generation, ahead.parts, n, keys)
            ahead = Ahead(generation, ahead.parts + 1)
    return ahead


def complete(
    session: Session, owner: Owner, ahead: Ahead, rest: Iterable[tuple[int, bytes]]
) -> Counting | None:
    """Store the `rest` of the parts: the caller lets the generation count in this transaction.

    None if what was stored ahead is not whole, or can't count any more.
    """
    generation = _next(session, owner, ahead)
    if generation is None:
        return None
    if ahead.parts and _sum(session, owner, generation)[0] != ahead.parts:
        return None
    for part, (n, keys) in enumerate(rest, start=ahead.parts):
        if n:
            _store(session, owner, generation, part, n, keys)
    return Counting(generation, _sum(session, owner, generation)[1])


def free_number(session: Session, owner: Owner, current: int) -> int:
    """A number above those of all generations that are stored: none that is stored now will count after this one."""
    return max(current, session.scalar(select(func.max(owner.part.generation)).where(owner.parts)) or 0) + 1


def _next(session: Session, owner: Owner, ahead: Ahead) -> int | None:
    current = owner.hold(session)
    if current is None:
        return None
    if ahead.generation is None:
        return free_number(session, owner, current)
    return ahead.generation if ahead.generation > current else None


def _store(session: Session, owner: Owner, generation: int, part: int, n: int, keys: bytes) -> None:
    place = {owner.column.key: owner.id, "generation": generation, "part": part}
    session.execute(insert(owner.part).values(**place, n=n, keys=keys))


def _sum(session: Session, owner: Owner, generation: int) -> tuple[int, int]:
    """How many parts of the generation are stored, and their members."""
    mine = owner.parts & (owner.part.generation == generation)
    parts, members = session.execute(
        select(func.count(), func.coalesce(func.sum(owner.part.n), 0)).where(mine)
    ).one()
    return int(parts), int(members)


def drop_others(steps: Steps, owner: Owner, *, at_work: ColumnElement[bool] | None = None) -> None:
    """Remove the parts that do not count, a part to a commit; while one is `at_work`, none that it may be storing."""
    other = owner.part.generation != owner.current
    if at_work is not None:
        other = (owner.part.generation < owner.current) | (other & ~at_work)
    one = select(owner.part.generation, owner.part.part).where(owner.parts, other).limit(1)
    place = tuple_(owner.part.generation, owner.part.part)
    drop(steps, delete(owner.part).where(owner.parts, place.in_(one)))


def any_others(session: Session, owner: Owner) -> bool:
    """Whether there are parts that do not count."""
    one = select(owner.part.part).where(owner.parts, owner.part.generation != owner.current)
    return session.scalar(one.limit(1)) is not None
