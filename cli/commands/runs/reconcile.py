"""`cohort-sync reconcile`: a list that can't be trusted gets a new base, by a download or by a new sync."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import confirm, context, names, output, views
from cli.commands.runs import wait
from cli.commands.runs.run import publish
from models.database import Database
from models.membership import list_base, webhooks
from models.naming import find
from models.runs import reconciling
from models.tables import CohortBinding
from models.types import RunState

app = typer.Typer(add_completion=False)


@app.command()
def reconcile(
    binding: Annotated[str, typer.Argument(autocompletion=names.bindings, help="The binding's name or id.")],
    new_sync: Annotated[
        bool,
        typer.Option(
            "--new-sync",
            help="Forget the list and say how to make a new sync in Amplitude that begins it: for a cohort of more "
            "than 2,000,000 members, which a download can't carry.",
        ),
    ] = False,
    yes: confirm.Yes = False,
    waited: Annotated[bool, typer.Option("--wait", help="Follow the run, and exit with its code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make one download the base of a webhook-fed binding's list, and sync the binding by it.

    Messages computed after the download was requested are applied on top of it. A run that is held goes on with it.

    Example: cohort-sync reconcile vips --wait
    """
    if new_sync and waited:
        raise typer.BadParameter("there is no run to wait for with --new-sync", param_hint="--wait")
    with context.database(proven=True) as db:
        if new_sync:
            _begin_anew(db, binding, yes=yes, as_json=as_json)
            return
        with db.write() as session:
            row = find(session, CohortBinding, binding)
            made = reconciling.ask(session, row, now=context.now(), actor=context.actor())
        if made.state == RunState.QUEUED:
            publish(made)
        if waited:
            wait.follow(db, made.id, as_json=as_json)
    text = f"Run {made.id} of {made.binding.name!r} takes a download as the list's base: `cohort-sync show {made.id}`."
    output.done(text, views.run(made), as_json=as_json)


def _begin_anew(db: Database, name: str, *, yes: bool, as_json: bool) -> None:
    with db.read() as session:
        row = find(session, CohortBinding, name)
        reconciling.require_fed(row)
    confirm.require(
        f"Forget what Amplitude has told of cohort {row.cohort_id!r}? Its flags stay as they are until a new sync has "
        "ended.",
        doing=f"Forgetting the list of cohort {row.cohort_id!r}",
        yes=yes,
    )
    with db.write() as session:
        row = find(session, CohortBinding, str(row.id))
        found = list_base.begin_anew(session, row, now=context.now(), actor=context.actor())
        path = f"/webhooks/{row.project_id}"
        since = found.created_at
    steps = [
        f"Open the cohort {row.cohort_id!r} in Amplitude and choose Sync.",
        f"Delete its sync to the webhook whose URL ends with {path}. What it still sends is refused.",
        "Create a new sync of the cohort to the same webhook, with the cadence that you want.",
        f"Wait until its first sync has ended: `cohort-sync status` shows it. Then: `cohort-sync run {row.name}`.",
    ]
    if as_json:
        output.emit(
            {
                "binding": row.name,
                "cohort": row.cohort_id,
                "forgotten_at": output.iso(since),
                "webhook": {"path": path, "header": webhooks.HEADER},
                "steps": steps,
            }
        )
        return
    output.say(f"The list of cohort {row.cohort_id!r} is forgotten. Now, in this order:")
    for number, step in enumerate(steps, start=1):
        output.say(f"{number}. {step}")
