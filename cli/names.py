"""What a shell completes: the names of what is set up, and the newest runs.

A person has pressed a key and waits: whatever is wrong, there is nothing to complete, and nothing is said or made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shlex import quote
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SECONDS = 1.0
MOST = 500
RUNS = 30
Completion = list[str | tuple[str, str]]


def sources(incomplete: str) -> Completion:
    """Names of sources."""
    from models.tables import AmplitudeProject

    return _names(AmplitudeProject, incomplete)


def destinations(incomplete: str) -> Completion:
    """Names of destinations."""
    from models.tables import Destination

    return _names(Destination, incomplete)


def bindings(incomplete: str) -> Completion:
    """Names of bindings."""
    from models.tables import CohortBinding

    return _names(CohortBinding, incomplete)


def runs(incomplete: str) -> Completion:
    """Ids of the newest runs with what they are, `latest`, and the names of bindings."""
    from models.runs import decisions

    found: Completion = []
    with suppress(Exception), _looking() as session:
        newest = decisions.list_runs(session, limit=RUNS)
        found = [(str(run.id), f"{run.binding.name}, {run.state}") for run in newest]
    return [*found, decisions.LATEST, *bindings(incomplete)]


def _names(kind: Any, incomplete: str) -> Completion:
    from sqlalchemy import select

    with suppress(Exception), _looking() as session:
        names = session.scalars(select(kind.name).order_by(kind.name_key).limit(MOST))
        return [_typed(name) for name in names if name.startswith(incomplete.strip("'\""))]
    return []


def _typed(name: str) -> str:
    """As it has to stand on the command line; the other shells quote by themselves."""
    return _Quoted(name) if os.environ.get("_COHORT_SYNC_COMPLETE") == "complete_bash" else name


class _Quoted(str):
    """A name quoted for bash that begins as the name does: Typer keeps what begins with the word that was typed."""

    __slots__ = ("_name",)
    _name: str

    def __new__(cls, name: str) -> Self:
        made = super().__new__(cls, quote(name))
        made._name = name
        return made

    def startswith(self, prefix: str | tuple[str, ...], *place: Any) -> bool:
        """Whether the name does."""
        return self._name.startswith(prefix, *place)


@contextmanager
def _looking() -> Iterator[Session]:
    """A database that is there already; FileNotFoundError where there is none yet."""
    from config.settings import get_settings
    from models.database import Database

    settings = get_settings()
    if not settings.database_url and not (settings.data_dir / "cohort-sync.db").exists():
        raise FileNotFoundError
    db = Database(settings, patience=SECONDS)
    try:
        with db.read() as session:
            yield session
    finally:
        db.dispose()
