"""`cohort-sync destination …`: Marketing Cloud business units."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import typer

from cli import confirm, context, names, output, views
from cli.commands.setup import changes, credentials
from cli.config_file import secret_sources
from cli.tables import Column
from models.naming import every, find
from models.setup import destinations
from models.tables import Destination
from models.types import WriteMode

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(autocompletion=names.destinations, help="The destination's name or id.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ClientSecret = Annotated[str | None, typer.Option(help=f"The package's client secret. {secret_sources.HELP}")]
AccountId = Annotated[
    str | None, typer.Option(help="The business unit's MID, if different from the package's own.")
]
MadeOn = Annotated[
    datetime | None,
    typer.Option(
        "--client-secret-made-on",
        formats=["%Y-%m-%d"],
        metavar="DATE",
        help="The day the secret was created (default: today). It may expire after 180 days.",
    ),
]
WriteModeName = Literal["async", "sync"]
WRITE_MODE = (
    "How rows are written: asynchronous jobs, or, for accounts without them, 50 rows per call (slow)."
)
SUBDOMAIN = "The subdomain only, such as mc563885gzs27c5t9-63k636ttgm: never a URL."
CLIENT_ID = "The installed package's client id. Also env:NAME or file:PATH."
PROPERTY = "What is matched with Contact Key: user_id, amplitude_id or a user property."


@app.callback()
def group() -> None:
    """Marketing Cloud business units: where flags go."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name of your choice.")],
    subdomain: Annotated[str, typer.Option(help=SUBDOMAIN)],
    client_id: Annotated[str, typer.Option(help=CLIENT_ID)],
    contact_key_property: Annotated[str, typer.Option(help=PROPERTY)],
    client_secret: ClientSecret = None,
    account_id: AccountId = None,
    made_on: MadeOn = None,
    write_mode: Annotated[WriteModeName, typer.Option(help=WRITE_MODE)] = "async",
    no_check: credentials.NoCheck = False,
    as_json: Json = False,
) -> None:
    """Add a Marketing Cloud business unit.

    Marketing Cloud is asked first whether it takes the client; nothing is stored if it does not.

    Example: cohort-sync destination add mc --subdomain mc563885gzs27c5t9-63k636ttgm --client-id env:MC_ID
    --client-secret env:MC_SECRET --contact-key-property user_id
    """
    identity = secret_sources.read_secret("client id", client_id, plain=True).get_secret_value()
    secret = secret_sources.read_secret("client secret", client_secret)
    with context.database(proven=True) as db:
        row = credentials.store(
            db,
            lambda session: destinations.add_destination(
                session,
                db.keyring,
                name=name,
                subdomain=subdomain,
                client_id=identity,
                client_secret=secret,
                contact_key_property=contact_key_property,
                account_id=account_id,
                write_mode=WriteMode(write_mode),
                client_secret_made_on=made_on.date() if made_on else None,
                now=context.now(),
                actor=context.actor(),
            ),
            ask=not no_check,
        )
    output.done(f"Destination {row.name!r} is added.", views.destination(row), as_json=as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """All destinations.

    Example: cohort-sync destination list --json
    """
    with context.database() as db, db.read() as session:
        rows = every(session, Destination)
    if as_json:
        output.emit([views.destination(row) for row in rows])
    else:
        output.table(
            [
                Column("id", 3),
                Column("name"),
                Column("subdomain", 1),
                Column("business unit", 4),
                Column("contact key is", 2),
                Column("secret since", 5),
            ],
            [
                (
                    str(row.id),
                    row.name,
                    row.subdomain,
                    row.account_id or "the package's",
                    row.contact_key_property,
                    row.client_secret_made_on,
                )
                for row in rows
            ],
            empty="There is no destination yet: `cohort-sync destination add`.",
        )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """One destination; its secret is never shown.

    Example: cohort-sync destination show mc
    """
    with context.database() as db, db.read() as session:
        row = find(session, Destination, name)
    if as_json:
        output.emit(views.destination(row))
        return
    found = row.data_extension
    output.facts(
        [
            ("name", row.name),
            ("id", str(row.id)),
            ("subdomain", row.subdomain),
            ("business unit", row.account_id or "the package's own"),
            ("client id", row.client_id),
            ("client secret", f"set (since {row.client_secret_made_on})"),
            ("contact key is", row.contact_key_property),
            (
                "rows are written",
                "by asynchronous jobs" if row.write_mode == WriteMode.ASYNC else "synchronously",
            ),
            (
                "data extension",
                f"key {found.get('key')}, id {found.get('id')}" if found else "not looked up yet",
            ),
            ("looked up", row.resolved_at),
            ("added", row.created_at),
        ]
    )


@app.command()
def update(
    ctx: typer.Context,
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    subdomain: Annotated[str | None, typer.Option(help=SUBDOMAIN)] = None,
    client_id: Annotated[str | None, typer.Option(help=CLIENT_ID)] = None,
    contact_key_property: Annotated[str | None, typer.Option(help=PROPERTY)] = None,
    client_secret: ClientSecret = None,
    account_id: AccountId = None,
    made_on: MadeOn = None,
    write_mode: Annotated[WriteModeName | None, typer.Option(help=WRITE_MODE)] = None,
    no_check: credentials.NoCheck = False,
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Change what is given, leave the rest. Asks before the stored client secret is replaced by another one.

    Marketing Cloud is asked first whether it takes another client, subdomain or business unit.

    Example: cohort-sync destination update mc --client-secret file:/run/secrets/mc
    """
    changes.require_some(ctx)
    identity = secret_sources.read_optional("client id", client_id, plain=True)
    secret = secret_sources.read_optional("client secret", client_secret)
    with context.database() as db:
        with db.read() as session:
            found = find(session, Destination, name)
        replaced = ["client secret"] if db.keyring.differs(found.client_secret_token, secret) else []
        confirm.require_for_secrets("destination", found.name, replaced, yes=yes)
        row = credentials.store(
            db,
            lambda session: destinations.update_destination(
                session,
                db.keyring,
                str(found.id),
                new_name=new_name,
                subdomain=subdomain,
                client_id=identity.get_secret_value() if identity else None,
                client_secret=secret,
                client_secret_made_on=made_on.date() if made_on else None,
                contact_key_property=contact_key_property,
                account_id=account_id,
                write_mode=WriteMode(write_mode) if write_mode else None,
                now=context.now(),
                actor=context.actor(),
            ),
            ask=not no_check and any((subdomain, identity, secret, account_id)),
        )
    output.done(f"Destination {row.name!r} is updated.", views.destination(row), as_json=as_json)


@app.command()
def remove(name: Name, yes: confirm.Yes = False, as_json: Json = False) -> None:
    """Remove a destination that no binding uses.

    Example: cohort-sync destination remove mc --yes
    """
    with context.database() as db:
        with db.read() as session:
            found = find(session, Destination, name)
        confirm.require(
            f"Remove destination {found.name!r} with its client secret?",
            doing=f"Removing destination {found.name!r}",
            yes=yes,
        )
        row = {"id": found.id, "name": found.name}
        with db.edit() as session:
            destinations.remove_destination(session, str(found.id), now=context.now(), actor=context.actor())
    output.done(f"Destination {row['name']!r} is removed.", row, as_json=as_json)
