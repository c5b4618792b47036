"""`cohort-sync source …`: Amplitude projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import confirm, context, names, output, views
from cli.commands.setup import changes, credentials, webhooks
from cli.config_file import secret_sources, vendors
from models.membership import snapshots
from models.naming import every, find
from models.setup import sources
from models.tables import AmplitudeProject
from models.types import Region, Tier

if TYPE_CHECKING:
    from worker.vendors.amplitude.client import Cohort, Usage

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(autocompletion=names.sources, help="The source's name or id.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RegionName = Literal["default", "eu"]
TierName = Literal["growth", "enterprise", "audiences"]
ApiKey = Annotated[str | None, typer.Option(help=f"The project's API key. {secret_sources.HELP}")]
SecretKey = Annotated[str | None, typer.Option(help=f"The project's secret key. {secret_sources.HELP}")]
Quota = Annotated[int, typer.Option(min=0, help="Cohort downloads a month that the project may spend.")]


@app.callback()
def group() -> None:
    """Amplitude projects: where cohorts come from."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name of your choice.")],
    api_key: ApiKey = None,
    secret_key: SecretKey = None,
    region: Annotated[RegionName, typer.Option(help="Amplitude's region of the project.")] = "default",
    tier: Annotated[
        TierName, typer.Option(help="The project's plan; only Audiences allows schedules.")
    ] = "growth",
    monthly_quota: Quota = sources.MONTHLY_DOWNLOADS,
    no_check: credentials.NoCheck = False,
    as_json: Json = False,
) -> None:
    """Add an Amplitude project. Amplitude is asked first whether it takes the keys; nothing is stored if it does not.

    Example: cohort-sync source add shop --api-key env:AMPLITUDE_API_KEY --secret-key env:AMPLITUDE_SECRET_KEY
    --tier audiences
    """
    keys = (
        secret_sources.read_secret("API key", api_key),
        secret_sources.read_secret("secret key", secret_key),
    )
    with context.database(proven=True) as db:
        row = credentials.store(
            db,
            lambda session: sources.add_source(
                session,
                db.keyring,
                name=name,
                api_key=keys[0],
                secret_key=keys[1],
                region=Region(region),
                tier=Tier(tier),
                monthly_quota=monthly_quota,
                now=context.now(),
                actor=context.actor(),
            ),
            ask=not no_check,
        )
    output.done(f"Source {row.name!r} is added.", views.source(row), as_json=as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """All sources.

    Example: cohort-sync source list --json
    """
    with context.database() as db, db.read() as session:
        rows = every(session, AmplitudeProject)
    if as_json:
        output.emit([views.source(row) for row in rows])
    else:
        output.table(
            ["id", "name", "region", "tier", "downloads a month"],
            [(str(row.id), row.name, row.region, row.tier, row.monthly_quota) for row in rows],
            empty="There is no source yet: `cohort-sync source add`.",
        )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """One source; its secrets are never shown. Example: cohort-sync source show shop"""
    with context.database() as db, db.read() as session:
        row = find(session, AmplitudeProject, name)
        spent, _ = snapshots.quota(session, row, now=context.now())
    if as_json:
        output.emit(views.source(row))
    else:
        since = sources.keys_since(row)
        output.facts(
            [
                ("name", row.name),
                ("id", str(row.id)),
                ("region", row.region),
                ("tier", row.tier),
                ("API key", f"set (since {since:%Y-%m-%d})"),
                ("secret key", f"set (since {since:%Y-%m-%d})"),
                ("downloads this month", f"{spent} of {row.monthly_quota}"),
                ("added", row.created_at),
            ]
        )


@app.command()
def update(
    ctx: typer.Context,
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    api_key: ApiKey = None,
    secret_key: SecretKey = None,
    region: Annotated[RegionName | None, typer.Option(help="Amplitude's region of the project.")] = None,
    tier: Annotated[TierName | None, typer.Option(help="The project's plan.")] = None,
    monthly_quota: Annotated[int | None, typer.Option(min=0, help="Cohort downloads a month.")] = None,
    no_check: credentials.NoCheck = False,
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Change what is given, leave the rest. Asks before a stored key is replaced by another one.

    Amplitude is asked first whether it takes new keys, or the old ones in another region.

    Example: cohort-sync source update shop --secret-key file:/run/secrets/amplitude
    """
    changes.require_some(ctx)
    new_api_key = secret_sources.read_optional("API key", api_key)
    new_secret_key = secret_sources.read_optional("secret key", secret_key)
    with context.database() as db:
        with db.read() as session:
            found = find(session, AmplitudeProject, name)
        given = {
            "API key": (found.api_key_token, new_api_key),
            "secret key": (found.secret_key_token, new_secret_key),
        }
        replaced = [one for one, pair in given.items() if db.keyring.differs(*pair)]
        confirm.require_for_secrets("source", found.name, replaced, yes=yes)
        row = credentials.store(
            db,
            lambda session: sources.update_source(
                session,
                db.keyring,
                str(found.id),
                new_name=new_name,
                api_key=new_api_key,
                secret_key=new_secret_key,
                region=Region(region) if region else None,
                tier=Tier(tier) if tier else None,
                monthly_quota=monthly_quota,
                now=context.now(),
                actor=context.actor(),
            ),
            ask=not no_check and any((new_api_key, new_secret_key, region)),
        )
    output.done(f"Source {row.name!r} is updated.", views.source(row), as_json=as_json)


@app.command()
def remove(name: Name, yes: confirm.Yes = False, as_json: Json = False) -> None:
    """Remove a source that no binding uses. Example: cohort-sync source remove shop --yes"""
    with context.database() as db:
        with db.read() as session:
            found = find(session, AmplitudeProject, name)
        confirm.require(
            f"Remove source {found.name!r} with its keys?", doing=f"Removing source {found.name!r}", yes=yes
        )
        row = {"id": found.id, "name": found.name}
        with db.edit() as session:
            sources.remove_source(session, str(found.id), now=context.now(), actor=context.actor())
    output.done(f"Source {row['name']!r} is removed.", row, as_json=as_json)


@app.command()
def cohorts(name: Name, as_json: Json = False) -> None:
    """The project's cohorts as Amplitude lists them; costs no download.

    Example: cohort-sync source cohorts shop
    """
    with context.database() as db:
        with db.read() as session:
            source = find(session, AmplitudeProject, name)
        with vendors.opened(db) as outside:
            found = vendors.cohorts(outside, source)
    if as_json:
        output.emit(
            [
                {
                    "id": one.id,
                    "name": one.name,
                    "size": one.size,
                    "archived": one.archived,
                    "published": one.published,
                    "group": one.group,
                    "last_computed": output.iso(one.last_computed),
                }
                for one in found
            ]
        )
    else:
        output.table(
            ["id", "name", "members", "last computed", "remarks"],
            [(one.id, one.name, one.size, one.last_computed, _remarks(one)) for one in found],
            empty="Amplitude lists no cohort; an unpublished one is not listed.",
        )


@app.command()
def usage(
    name: Name,
    local: Annotated[
        bool, typer.Option("--local", help="Show cohort-sync's own count without asking Amplitude.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Cohort downloads of this month (UTC) against the quota, and what Amplitude itself counts.

    Example: cohort-sync source usage shop
    """
    now = context.now()
    with context.database() as db:
        with db.read() as session:
            row = find(session, AmplitudeProject, name)
            spent, allowed = snapshots.quota(session, row, now=now)
        told, why = (None, "not asked") if local else vendors.usage(db, row)
    left = max(0, allowed - spent)
    if as_json:
        counts = {"spent": spent, "quota": allowed, "left": left}
        output.emit({"source": row.name, "month": f"{now:%Y-%m}", **counts, "amplitude": _told(told)})
    else:
        output.facts(
            [
                ("source", row.name),
                ("month", f"{now:%Y-%m} (UTC)"),
                ("downloads spent", spent),
                ("quota", allowed),
                ("left", left),
                ("Amplitude counts", f"{told.used} of {told.limit}" if told else why),
            ]
        )


app.command()(webhooks.webhook)


def _told(usage: Usage | None) -> dict[str, Any] | None:
    """Amplitude's own count of the month's downloads, if it told one."""
    if usage is None:
        return None
    return {"spent": usage.used, "quota": usage.limit, "resets_at": usage.resets_at or None}


def _remarks(cohort: Cohort) -> str:
    words = ["archived"] * cohort.archived + ["unpublished"] * (not cohort.published)
    if cohort.group != "User":
        words.append(f"holds groups ({cohort.group})")
    return ", ".join(words)
