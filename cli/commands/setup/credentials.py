"""Sources and destinations are stored if their vendor takes the credentials: a mistake is found where it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer
from sqlalchemy.orm import Session

from cli.commands.setup import checks
from models.database import Database
from models.tables import AmplitudeProject, Destination

Stored = TypeVar("Stored", AmplitudeProject, Destination)
NoCheck = Annotated[bool, typer.Option("--no-check", help="Store it without asking the vendor.")]


def store(db: Database, change: Callable[[Session], Stored], *, ask: bool) -> Stored:
    """Make the change; with `ask` only if the vendor takes the credentials that it leaves."""
    if ask:
        # First as a draft that is rolled back: nobody is asked anything while the database is locked.
        with db.edit() as session:
            draft = change(session)
            session.expunge_all()
            session.rollback()
        checks.require(db, draft)
    with db.edit() as session:
        return change(session)
