"""`cohort-sync db …`: the schema, and the room it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import context, output
from models import schema

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def group() -> None:
    """The database's schema, and the room it takes."""


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


@app.command()
def compact(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Give the room of what was removed back to the file system.

    SQLite keeps it otherwise. Runs wait meanwhile, some seconds a gigabyte, and as much room again is needed.
    PostgreSQL does it by itself; there this is VACUUM ANALYZE, and nobody waits.

    Example: cohort-sync db compact
    """
    with context.database() as db:
        before = db.size()
        db.compact()
        after = db.size()
    output.done(
        f"The database has {after / 1e6:,.1f} MB, {max(0, before - after) / 1e6:,.1f} MB less than before.",
        {"bytes_before": before, "bytes": after},
        as_json=as_json,
    )
