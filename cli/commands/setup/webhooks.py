"""`cohort-sync receiver` and `cohort-sync source webhook`: cohorts told by Amplitude instead of downloaded."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from cli import confirm, context, names, output
from models.membership import webhooks
from models.naming import find
from models.tables import AmplitudeProject

app = typer.Typer(add_completion=False)

MEGABYTE = 1_000_000


@app.command()
def receiver(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 picks a free one.")] = 8080,
    max_megabytes: Annotated[
        int, typer.Option(min=1, max=1000, help="The largest message accepted, in bytes.")
    ] = 32,
) -> None:
    """A receiver of Amplitude's cohort webhook. Any number of them, behind a proxy that speaks TLS.

    Example: cohort-sync receiver --host 0.0.0.0 --port 8080
    """
    settings = context.settings()
    with context.database(proven=True):
        pass
    from receiver.main import serve

    raise typer.Exit(
        serve(
            settings,
            host=host,
            port=port,
            max_bytes=max_megabytes * MEGABYTE,
            ready=lambda address: output.note(f"receiving at {address}/webhooks/SOURCE"),
        )
    )


def webhook(
    name: Annotated[str, typer.Argument(autocompletion=names.sources, help="The source's name or id.")],
    rotate: Annotated[bool, typer.Option("--rotate", help="Create a new secret.")] = False,
    overlap_hours: Annotated[
        float,
        typer.Option(
            min=0,
            max=720,
            help="With --rotate: for how long the old secret is accepted as well; 0 refuses it at once.",
        ),
    ] = 24,
    yes: confirm.Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What to type into Amplitude's cohort webhook; its secret is shown when it is made, and never again.

    Example: cohort-sync source webhook shop
    """
    with context.database(proven=True) as db:
        with db.read() as session:
            found = find(session, AmplitudeProject, name)
        if rotate and found.webhook_secret_token is not None:
            confirm.require(
                f"Make a new secret for {found.name!r}? The old one is refused {_when(overlap_hours)}.",
                doing=f"Ending the webhook secret of source {found.name!r}",
                yes=yes,
            )
        with db.edit() as session:
            source, secret = webhooks.make_secret(
                session,
                db.keyring,
                str(found.id),
                rotate=rotate,
                overlap=timedelta(hours=overlap_hours),
                now=context.now(),
                actor=context.actor(),
            )
            since, old_until = source.webhook_secret_at, source.webhook_old_secret_until
            path = f"/webhooks/{source.id}"
    shown = secret.get_secret_value() if secret is not None else None
    if as_json:
        output.emit(
            {
                "path": path,
                "header": webhooks.HEADER,
                "secret": shown,
                "since": output.iso(since),
                "old_until": output.iso(old_until),
            }
        )
        return
    made = f"made on {since:%Y-%m-%d}" if since else ""
    output.facts(
        [
            ("URL", f"https://YOUR-HOST{path}"),
            ("header", webhooks.HEADER),
            ("its value", shown or f"{made}; not shown again, --rotate makes another"),
            *([("the old value", f"is accepted until {old_until:%Y-%m-%d %H:%M} UTC")] if old_until else []),
        ]
    )


def _when(hours: float) -> str:
    return f"in {hours:g} hours" if hours else "at once"
