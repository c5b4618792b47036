"""`cohort-sync db …`: the schema."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import context, output
from models import schema

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def group() -> None:
    """The database's schema."""


@app.command()
def upgrade(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Bring the database to this version's schema; nothing happens if it is there.

    The embedded SQLite is upgraded by any command; PostgreSQL by this one, before the processes start.

    Example: cohort-sync db upgrade
    """
    with context.database(upgrade=True):
        pass
    output.done(f"The database is at schema {schema.head()}.", {"schema": schema.head()}, as_json=as_json)
