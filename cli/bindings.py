"""`cohort-sync binding …`: one cohort kept in one attribute."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli import checks, context, output, timing, views
from models import bindings
from models.naming import every, find
from models.tables import CohortBinding
from models.types import Feed

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The binding's name, or its id.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Overlap = Literal["skip", "queue"]
Catchup = Literal["latest", "none"]
FeedName = Literal["download", "webhook"]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Do not ask the vendors first.")]
FEED = "How members arrive: asked for, or told by Amplitude's cohort webhook (docs/webhooks.md)."
NEW_SYNC = "note: now make a new sync of the cohort in Amplitude: only a new one begins with every member."
CRON = "Five cron fields, such as '0 6 * * *'; H spreads bindings. Needs the Audiences tier."
TIMEZONE = "The schedule's time zone, such as Europe/Berlin."
OVERLAP = "When it is due while a run is unfinished: skip it, or queue one."
CATCHUP = "After a time when nothing ran: the latest missed occurrence, or none."
WINDOW = "How old a missed occurrence may be: seconds, or 90m, 6h, 2d."
JITTER = "Start up to so much later, each binding at its own time: seconds, or 10m."
GUARD = "Hold a run that would remove more than this share of the members, 0 to 100."


@app.callback()
def group() -> None:
    """Cohort bindings: one cohort kept in one attribute."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What you call it.")],
    source: Annotated[str, typer.Option(help="The Amplitude project.")],
    cohort: Annotated[str, typer.Option(help="The cohort's id: `cohort-sync source cohorts SOURCE`.")],
    destination: Annotated[str, typer.Option(help="The Marketing Cloud business unit.")],
    attribute: Annotated[str, typer.Option(help="The field of Amplitude Engage made for this cohort alone.")],
    cron: Annotated[str | None, typer.Option(help=CRON)] = None,
    timezone: Annotated[str, typer.Option(help=TIMEZONE)] = "UTC",
    overlap: Annotated[Overlap, typer.Option(help=OVERLAP)] = "skip",
    catchup: Annotated[Catchup, typer.Option(help=CATCHUP)] = "latest",
    catchup_window: Annotated[str, typer.Option(help=WINDOW, metavar="LENGTH")] = "24h",
    jitter: Annotated[str, typer.Option(help=JITTER, metavar="LENGTH")] = "0",
    max_removal_percent: Annotated[int | None, typer.Option(help=GUARD)] = None,
    feed: Annotated[FeedName, typer.Option(help=FEED)] = "download",
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Bind a cohort to an attribute.

    Both vendors are asked first whether everything is in place; nothing is stored if it is not.

    Example: cohort-sync binding add vips --source shop --cohort k2x7abc --destination mc --attribute VIP
    --cron '0 6 * * *' --timezone Europe/Berlin
    """
    now = context.now()
    planned = timing.timing(
        name,
        cron=cron,
        timezone=timezone,
        overlap=overlap,
        catchup=catchup,
        catchup_window_seconds=timing.seconds("catchup_window", catchup_window),
        jitter_seconds=timing.seconds("jitter", jitter),
        now=now,
    )
    with context.database() as db:
        # First as a draft that is rolled back: the vendors are not asked while the database is locked.
        for draft in (False,) if no_check else (True, False):
            with db.write() as session:
                row = bindings.add_binding(
                    session,
                    name=name,
                    source=source,
                    cohort_id=cohort,
                    destination=destination,
                    attribute=attribute,
                    timing=planned,
                    feed=Feed(feed),
                    max_removal_percent=max_removal_percent,
                    now=now,
                    actor=context.actor(),
                )
                if draft:
                    session.expunge_all()
                    session.rollback()
            if draft:
                checks.require(db, row)
    output.done(
        f"Binding {row.name!r} is added: {timing.in_words(row)}.", views.binding(row), as_json=as_json
    )
    if feed == Feed.WEBHOOK:
        output.note(NEW_SYNC)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """All bindings.

    Example: cohort-sync binding list --json
    """
    with context.database() as db, db.read() as session:
        rows = every(session, CohortBinding)
    if as_json:
        output.emit([views.binding(row) for row in rows])
    else:
        output.table(
            ["id", "name", "source", "cohort", "destination", "attribute", "members", "runs"],
            [
                (
                    str(row.id),
                    row.name,
                    row.project.name,
                    row.cohort_id,
                    row.destination.name,
                    row.attribute,
                    row.member_count,
                    timing.in_words(row) + (" (paused)" if row.paused else ""),
                )
                for row in rows
            ],
            empty="There is no binding yet: `cohort-sync binding add`.",
        )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """One binding.

    Example: cohort-sync binding show vips
    """
    now = context.now()
    with context.database() as db, db.read() as session:
        row = find(session, CohortBinding, name)
    if as_json:
        output.emit(views.binding(row))
        return
    guard = row.max_removal_percent
    pairs: list[tuple[str, object]] = [
        ("name", row.name),
        ("id", str(row.id)),
        ("source", row.project.name),
        ("cohort", row.cohort_id),
        ("fed by", row.feed),
        ("destination", row.destination.name),
        ("attribute", row.attribute),
        ("attribute locked", output.when(row.attribute_locked_at, now)),
        ("members", row.member_count),
        ("runs", timing.in_words(row)),
        ("removal guard", "the default" if guard is None else f"{guard} %"),
        ("paused", row.pause_reason or "yes" if row.paused else "no"),
        ("failures in a row", row.failures_in_row),
        ("added", row.created_at),
    ]
    if row.cron is not None:
        pairs[10:10] = [
            ("cron", row.cron),
            ("next", output.when(row.next_due_at, now)),
            ("overlap", row.overlap),
            ("catch-up", f"{row.catchup}, within {row.catchup_window_seconds} s"),
            ("jitter", f"{row.jitter_seconds} s"),
        ]
    output.facts(pairs)


@app.command()
def update(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Another cohort; only before the first sync.")] = None,
    attribute: Annotated[str | None, typer.Option(help="Another field; only before the first sync.")] = None,
    cron: Annotated[str | None, typer.Option(help=CRON)] = None,
    on_demand: Annotated[bool, typer.Option("--on-demand", help="No schedule any more.")] = False,
    timezone: Annotated[str | None, typer.Option(help=TIMEZONE)] = None,
    overlap: Annotated[Overlap | None, typer.Option(help=OVERLAP)] = None,
    catchup: Annotated[Catchup | None, typer.Option(help=CATCHUP)] = None,
    catchup_window: Annotated[str | None, typer.Option(help=WINDOW, metavar="LENGTH")] = None,
    jitter: Annotated[str | None, typer.Option(help=JITTER, metavar="LENGTH")] = None,
    max_removal_percent: Annotated[int | None, typer.Option(help=GUARD)] = None,
    feed: Annotated[FeedName | None, typer.Option(help=FEED)] = None,
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Change what is given, leave the rest.

    The vendors are asked first when the cohort or the attribute changes. Once synced to, neither can be changed.

    Example: cohort-sync binding update vips --cron '0 7 * * mon-fri'
    """
    if cron is not None and on_demand:
        raise typer.BadParameter("--cron and --on-demand exclude each other")
    now = context.now()
    changed: dict[str, object] = {
        "name": new_name,
        "cron": cron,
        "timezone": timezone,
        "overlap": overlap,
        "catchup": catchup,
        "catchup_window_seconds": catchup_window and timing.seconds("catchup_window", catchup_window),
        "jitter_seconds": jitter and timing.seconds("jitter", jitter),
    }
    changed = {key: value for key, value in changed.items() if value is not None}
    if on_demand:
        changed["cron"] = None
    ask = not no_check and (cohort is not None or attribute is not None)
    with context.database() as db:
        for draft in (True, False) if ask else (False,):
            with db.write() as session:
                stored = find(session, CohortBinding, name)
                row = bindings.update_binding(
                    session,
                    name,
                    new_name=new_name,
                    cohort_id=cohort,
                    attribute=attribute,
                    timing=timing.timing_of(stored, now, **changed) if changed else None,
                    feed=Feed(feed) if feed else None,
                    max_removal_percent=max_removal_percent,
                    now=now,
                    actor=context.actor(),
                )
                session.flush()
                if draft:
                    session.expunge_all()
                    session.rollback()
            if draft:
                checks.require(db, row)
    output.done(
        f"Binding {row.name!r} is updated: {timing.in_words(row)}.", views.binding(row), as_json=as_json
    )
    if feed == Feed.WEBHOOK:
        output.note(NEW_SYNC)


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Forget a binding with its state and history.

    Nothing is sent: the flags in Marketing Cloud stay as they are.

    Example: cohort-sync binding remove vips --yes
    """
    with context.database() as db:
        with db.read() as session:
            found = find(session, CohortBinding, name)
        if not yes and context.interactive():
            typer.confirm(
                f"Forget {found.name!r}, its {found.member_count:,} members and its history?", abort=True
            )
        with db.write() as session:
            bindings.remove_binding(session, str(found.id), now=context.now(), actor=context.actor())
    output.done(
        f"Binding {found.name!r} is removed; the flags in Marketing Cloud stay as they are.",
        {"id": found.id, "name": found.name},
        as_json=as_json,
    )


@app.command()
def pause(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for whoever wonders.")] = "paused by hand",
    as_json: Json = False,
) -> None:
    """No scheduled run until it is resumed; a run by hand is still possible.

    Example: cohort-sync binding pause vips --reason 'until the campaign is over'
    """
    with context.database() as db, db.write() as session:
        row = bindings.pause_binding(session, name, reason=reason, now=context.now(), actor=context.actor())
    output.done(f"Binding {row.name!r} is paused.", views.binding(row), as_json=as_json)


@app.command()
def resume(name: Name, as_json: Json = False) -> None:
    """On with the schedule; what was missed while paused stays missed.

    Example: cohort-sync binding resume vips
    """
    now = context.now()
    with context.database() as db, db.write() as session:
        stored = find(session, CohortBinding, name)
        planned = timing.timing_of(stored, now) if stored.cron is not None else None
        row = bindings.resume_binding(session, name, timing=planned, now=now, actor=context.actor())
    following = f": next at {output.when(row.next_due_at, now)}" if row.next_due_at else ""
    output.done(f"Binding {row.name!r} is resumed{following}.", views.binding(row), as_json=as_json)
