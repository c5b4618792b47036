"""`cohort-sync binding remove | pause | resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import confirm, context, output, views
from cli.commands.setup.binding_options import Json, Name
from cli.config_file import timing
from models.naming import find
from models.setup import bindings
from models.tables import CohortBinding


def remove(
    name: Name,
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Forget a binding with its state and history.

    Nothing is sent: the flags in Marketing Cloud stay as they are.

    Example: cohort-sync binding remove vips --yes
    """
    with context.database() as db:
        with db.read() as session:
            found = find(session, CohortBinding, name)
        confirm.require(
            f"Forget {found.name!r}, its {found.member_count:,} members and its history? "
            "The flags in Marketing Cloud stay as they are.",
            doing=f"Removing binding {found.name!r}, whose flags in Marketing Cloud would stay,",
            yes=yes,
        )
        with db.edit() as session:
            bindings.remove_binding(session, str(found.id), now=context.now(), actor=context.actor())
    output.done(
        f"Binding {found.name!r} is removed; the flags in Marketing Cloud stay as they are.",
        {"id": found.id, "name": found.name},
        as_json=as_json,
    )


def pause(
    name: Name,
    reason: Annotated[str, typer.Option(help="The reason, shown to others.")] = "paused by hand",
    as_json: Json = False,
) -> None:
    """No scheduled run until it is resumed; a run by hand is still possible.

    Example: cohort-sync binding pause vips --reason 'until the campaign is over'
    """
    with context.database() as db, db.edit() as session:
        row = bindings.pause_binding(session, name, reason=reason, now=context.now(), actor=context.actor())
    output.done(f"Binding {row.name!r} is paused.", views.binding(row), as_json=as_json)


def resume(name: Name, as_json: Json = False) -> None:
    """On with the schedule; what was missed while paused stays missed.

    Example: cohort-sync binding resume vips
    """
    now = context.now()
    with context.database() as db, db.edit() as session:
        stored = find(session, CohortBinding, name)
        planned = timing.timing_of(stored, now) if stored.cron is not None else None
        row = bindings.resume_binding(session, name, timing=planned, now=now, actor=context.actor())
    following = f": next at {output.when(row.next_due_at, now)}" if row.next_due_at else ""
    output.done(f"Binding {row.name!r} is resumed{following}.", views.binding(row), as_json=as_json)
