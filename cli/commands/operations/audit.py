"""`cohort-sync audit`: who changed what, when and by which door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli import context, names, output
from cli.config_file.timing import moment
from models import audit as log
from models.tables import AuditEvent

app = typer.Typer(add_completion=False)

SINCE = "Only what was done from then on: a length of time ago such as 90m, 6h or 7d, or a date with or without a time."


@app.command()
def audit(
    binding: Annotated[
        str | None,
        typer.Option(
            autocompletion=names.bindings,
            help="Only what was done to this binding and its runs, also if it is gone.",
        ),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this person or program did.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help=SINCE)] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was done before; as --since.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of events.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Who changed what, the newest first: each setting's old and new value, never a secret.

    Example: cohort-sync audit --binding vips --since 30d
    """
    now = context.now()
    with context.database() as db, db.read() as session:
        found = log.events(
            session,
            bindings=log.bindings_named(session, binding) if binding is not None else None,
            actor=actor,
            since=moment(since, now, "--since"),
            until=moment(until, now, "--until"),
            limit=limit,
        )
    if as_json:
        output.emit([_document(event) for event in found])
        return
    if not found:
        output.say("Nothing was done that is recorded.")
    for event in found:
        by = f"{event.actor} ({event.door})" if event.door else event.actor
        output.say(f"{output.text(event.at)}  {by}  {event.action} {event.kind} {event.name}")
        for line in _lines(event.details):
            output.say(f"    {line}")


def _document(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": output.iso(event.at),
        "actor": event.actor,
        "door": event.door,
        "action": event.action,
        "kind": event.kind,
        "name": event.name,
        "binding_id": event.binding_id,
        "details": event.details,
    }


def _lines(details: dict[str, Any]) -> Iterator[str]:
    for name, told in details.items():
        if not isinstance(told, dict):
            if told is not None:
                yield f"{name}: {output.text(told)}"
        elif "old" in told and "new" in told:
            yield f"{name}: {_word(told['old'])} → {_word(told['new'])}"
        else:
            yield f"{name}: {_word(told.get('new', told.get('old')))}"


def _word(value: object) -> str:
    return "none" if value in (None, "") else output.text(value)
