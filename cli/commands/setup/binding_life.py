"""`cohort-sync binding remove | pause | resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import confirm, context, output, views
from cli.commands.runs import wait
from cli.commands.runs.run import publish
from cli.commands.setup.binding_options import Json, Name
from cli.config_file import timing
from cli.exit_codes import OF_STATE
from models.database import Database
from models.naming import find
from models.setup import bindings
from models.setup.blackouts import next_start
from models.tables import CohortBinding, SyncRun
from models.types import RunState
from models.wording import plural


def remove(
    name: Name,
    clear_flags: Annotated[
        bool,
        typer.Option(
            "--clear-flags",
            help="Set every flag to false first, by a run; the binding is removed when that has succeeded.",
        ),
    ] = False,
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Forget a binding with its state and history.

    Without --clear-flags nothing is sent: the flags in Marketing Cloud stay as they are.

    Example: cohort-sync binding remove vips --clear-flags
    """
    actor = context.actor()
    with context.database() as db:
        with db.read() as session:
            found = find(session, CohortBinding, name)
        after = "are set to false first" if clear_flags else "stay as they are"
        confirm.require(
            f"Forget {found.name!r}, its {plural(found.members_shown, 'member')} and its history? "
            f"The flags in Marketing Cloud {after}.",
            doing=f"Removing binding {found.name!r}, whose flags in Marketing Cloud {after},",
            yes=yes,
        )
        cleared = _cleared(db, found) if clear_flags else None
        with db.edit() as session:
            if cleared is None:
                bindings.remove_binding(session, str(found.id), now=context.now(), actor=actor)
            else:
                bindings.remove_cleared(session, found.id, cleared.id, now=context.now(), actor=actor)
    after = "are false" if clear_flags else "stay as they are"
    output.done(
        f"Binding {found.name!r} is removed; the flags in Marketing Cloud {after}.",
        {"id": found.id, "name": found.name, "cleared_by": cleared.id if cleared else None},
        as_json=as_json,
    )


def _cleared(db: Database, binding: CohortBinding) -> SyncRun | None:
    """The run that has set every flag to false, at its end; none where there never was one."""
    with db.edit() as session:
        made = bindings.clear_and_keep(session, str(binding.id), now=context.now(), actor=context.actor())
    if made is None:
        return None
    publish(made)
    try:
        ended = wait.until_end(db, made.id)
    except KeyboardInterrupt:
        output.note(
            f"Run {made.id} continues, and {binding.name!r} is paused. Repeat the command to remove it."
        )
        raise
    if ended.state != RunState.SUCCEEDED:
        output.note(
            f"{binding.name!r} is kept, and paused: run {ended.id} is {ended.state} (`cohort-sync show {ended.id}`). "
            "Repeat the command when that is settled, or resume the binding."
        )
        raise typer.Exit(OF_STATE[ended.state])
    return ended


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
    starts = next_start(row, now)
    following = f": next at {output.local(starts, row.timezone, now)}" if starts else ""
    output.done(f"Binding {row.name!r} is resumed{following}.", views.binding(row), as_json=as_json)
