"""`cohort-sync backup` and `cohort-sync restore`: a copy of what is stored, and the way back to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import confirm, context, output
from models import audit, key_check, schema
from models.data_protection import backup as copies
from models.database import Database
from models.errors import ConfigurationError
from models.wording import plural

app = typer.Typer(add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; it holds personal data.")],
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Copy the database while everything runs. The secret key is not in the copy: keep it too, elsewhere.

    SQLite only; with PostgreSQL it says which pg_dump to run.

    Example: cohort-sync backup /mnt/backups/cohort-sync.db
    """
    with context.database() as db:
        if db.dialect == "sqlite" and file.exists():
            if file.samefile(db.place):
                raise ConfigurationError("FILE_UNWRITABLE", file=file, why="it is the database itself")
            confirm.require(f"Replace {file}?", doing=f"Replacing {file}", yes=yes)
        size = copies.copy(db, file, now=context.now(), actor=context.actor())
    text = (
        f"{file} holds what was stored at this moment ({size:,} bytes). Keep the secret key too, elsewhere."
    )
    output.done(text, {"file": str(file), "bytes": size}, as_json=as_json)


@app.command()
def restore(
    file: Annotated[Path | None, typer.Argument(help="What `cohort-sync backup` wrote.")] = None,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="The database itself was restored already, as by pg_restore."),
    ] = False,
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Go back to a copy, while nothing runs. Every binding's next run reads the data extension first.

    What was set up, synced or delivered by a webhook since the copy is lost. Contacts that were forgotten since then
    stay forgotten: repeat `cohort-sync forget` for those that it lists.

    Example: cohort-sync restore /mnt/backups/cohort-sync.db --yes
    """
    from cli.stack.lock import DirectoryLock

    if (file is None) != in_place:
        raise typer.BadParameter("give the copy, or --in-place", param_hint="FILE")
    settings = context.settings()
    with DirectoryLock(settings.data_dir), audit.through(audit.CLI):
        bindings = _in_place(yes=yes) if file is None else _from(file, yes=yes)
        copies.clear_files(settings.data_dir)
    text = f"Restored: {plural(bindings, 'binding')}. The next run of each reads the data extension first."
    output.done(text, {"file": str(file) if file else None, "bindings": bindings}, as_json=as_json)


def _from(file: Path, *, yes: bool) -> int:
    settings = context.settings()
    db = Database(settings)
    place, dialect = Path(db.place), db.dialect
    db.dispose()
    if dialect != "sqlite":
        raise ConfigurationError("RESTORE_POSTGRESQL", place=db.place, file=file, address=copies.address(db))
    if file.exists() and place.exists() and file.samefile(place):
        raise ConfigurationError("BACKUP_INVALID", file=file, why="it is the database itself")
    confirm.require(
        f"Replace the database at {place} by {file}? What was stored since that copy is lost.",
        doing=f"Replacing the database at {place}",
        yes=yes,
    )
    return copies.restore(settings, place, file, now=context.now(), actor=context.actor())


def _in_place(*, yes: bool) -> int:
    """What was restored by other means: checked, and marked like a copy."""
    if living := context.schedulers():
        raise ConfigurationError("STACK_RUNNING", place=f"the database (schedulers: {len(living)})")
    with context.database() as db:
        schema.require_current(db)
        key_check.prove(db)
        confirm.require(
            "End every run that was under way, and read the data extension in each binding's next run?",
            doing="Marking the database as restored",
            yes=yes,
        )
        return copies.mark(db, now=context.now(), actor=context.actor())
