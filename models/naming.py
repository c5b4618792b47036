"""How a person's names find rows: without case, or by id. Owns no table."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import ConfigurationError, NotFoundError
from models.tables import AmplitudeProject, CohortBinding, Destination

NAME_MAX = 100
ID_MAX = 2**63 - 1  # of an integer column, on SQLite and PostgreSQL
Row = AmplitudeProject | Destination | CohortBinding
Named = TypeVar("Named", bound=Row)
KINDS: dict[type[Any], str] = {
    AmplitudeProject: "source",
    Destination: "destination",
    CohortBinding: "binding",
}


def name_key(name: str) -> str:
    """The form two names are compared in."""
    return name.strip().casefold()


def schedule_key(binding: str) -> str:
    """What spreads bindings of one cron text over its `H` and over the jitter: a binding's name, however typed."""
    return f"binding:{name_key(binding)}"


def formed_name(name: str) -> str:
    """The name as it will stand, refused if it is malformed."""
    name = name.strip()
    if not name or len(name) > NAME_MAX or name.isdigit() or not name.isprintable():
        raise ConfigurationError("NAME_INVALID", name=name[:NAME_MAX])
    return name


def checked_name(session: Session, kind: type[Named], name: str, *, but: int | None = None) -> str:
    """The same, refused if it is taken (by another than the row `but`)."""
    name = formed_name(name)
    taken = session.scalar(select(kind.id).where(kind.name_key == name_key(name)))
    if taken is not None and taken != but:
        raise ConfigurationError("NAME_TAKEN", kind=KINDS[kind], name=name)
    return name


def find(session: Session, kind: type[Named], name: str) -> Named:
    """The row of that name or id."""
    row = session.scalar(select(kind).where(kind.name_key == name_key(name)))
    if row is None and (number := row_id(name)) is not None:
        row = session.get(kind, number)
    if row is None:
        raise NotFoundError(
            "NOT_FOUND",
            _nearest(session, kind, name),
            kind=KINDS[kind],
            name=name[:NAME_MAX],
            listing=f"{KINDS[kind]} list",
        )
    return row


def row_id(text: str) -> int | None:
    """The text as an id that a row can have; None for any other text."""
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text[:20])
    return number if len(text) <= len(str(ID_MAX)) and number <= ID_MAX else None


def _nearest(session: Session, kind: type[Named], name: str) -> str:
    """A question that names the most similar name there is; nothing if none is similar."""
    known = {row.name_key: row.name for row in session.execute(select(kind.name_key, kind.name))}
    close = get_close_matches(name_key(name)[:NAME_MAX], known, n=1)
    return f"Did you mean {known[close[0]]!r}?" if close else ""


def every(session: Session, kind: type[Named]) -> list[Named]:
    """All rows of a kind, by name."""
    return list(session.scalars(select(kind).order_by(kind.name_key)))
