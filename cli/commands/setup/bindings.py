"""`cohort-sync binding …`: one cohort kept in one attribute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from cli import confirm, context, names, output, views
from cli.commands.setup import binding_life, changes, checks
from cli.commands.setup.binding_options import (
    ATTRIBUTE,
    CATCHUP,
    COHORT,
    DESTINATION,
    FEED,
    JITTER,
    MOVES,
    NEW_SYNC,
    OVERLAP,
    SOURCE,
    TIMEZONE,
    WINDOW,
    After,
    Blackout,
    Blank,
    Catchup,
    CatchupName,
    Cron,
    Deviation,
    Duplicate,
    End,
    FeedName,
    FirstSync,
    Growth,
    Guard,
    Jitter,
    Json,
    Length,
    Name,
    NoCheck,
    Overlap,
    OverlapName,
    Start,
)
from cli.config_file import edits, quota, timing
from cli.config_file.fields import BINDING
from cli.tables import Column
from models.membership import webhooks
from models.naming import every, find
from models.setup.binding_fields import LIMITS
from models.setup.bindings import name_cohort
from models.setup.blackouts import next_start
from models.tables import CohortBinding

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def group() -> None:
    """Cohort bindings: one cohort kept in one attribute."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name of your choice.")],
    source: Annotated[str, typer.Option(autocompletion=names.sources, help=SOURCE)],
    cohort: Annotated[str, typer.Option(help=COHORT)],
    destination: Annotated[str, typer.Option(autocompletion=names.destinations, help=DESTINATION)],
    attribute: Annotated[str, typer.Option(help=ATTRIBUTE)],
    cron: Cron = None,
    timezone: Annotated[str, typer.Option(help=TIMEZONE)] = "UTC",
    start: Start = None,
    end: End = None,
    after: After = None,
    blackout: Blackout = None,
    overlap: Annotated[OverlapName, typer.Option(help=OVERLAP)] = "skip",
    catchup: Annotated[CatchupName, typer.Option(help=CATCHUP)] = "latest",
    catchup_window: Annotated[str, typer.Option(help=WINDOW, metavar="LENGTH")] = "24h",
    jitter: Annotated[str, typer.Option(help=JITTER, metavar="LENGTH")] = "0",
    max_removal_percent: Guard = None,
    max_growth_percent: Growth = None,
    max_first_sync: FirstSync = None,
    max_blank_percent: Blank = None,
    max_duplicate_percent: Duplicate = None,
    max_deviation_percent: Deviation = None,
    feed: Annotated[FeedName, typer.Option(help=FEED)] = "download",
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Bind a cohort to an attribute.

    Both vendors are asked first whether everything is in place; nothing is stored if it is not.

    Example: cohort-sync binding add vips --source shop --cohort k2x7abc --destination mc --attribute VIP
    --cron '0 6 * * *' --timezone Europe/Berlin
    """
    values = BINDING.defaults() | BINDING.given(locals())  # the options by their names
    _store(
        lambda session, now: edits.add_binding(session, name, values, now=now),
        "added",
        ask=not no_check,
        told=feed == "webhook",
        as_json=as_json,
    )


def _store(
    change: Callable[[Session, datetime], CohortBinding],
    verb: str,
    *,
    ask: bool,
    told: bool,
    as_json: bool,
    yes: bool = True,
) -> None:
    """Make a change and say so: first `ask` the vendors, and without `yes` a person. `told`: it is webhook-fed now."""
    now = context.now()
    with context.database() as db:
        # First as a draft that is rolled back: nobody is asked anything while the database is locked.
        cohort_name = None
        for draft in (True, False) if ask or not yes else (False,):
            with db.edit() as session:
                lists = webhooks.lists(session)
                row = change(session, now)
                if cohort_name is not None:
                    name_cohort(session, row, cohort_name)
                lost = webhooks.lost(lists, webhooks.lists(session))
                if draft:
                    session.expunge_all()
                    session.rollback()
            if draft:
                confirm.require_for_lists(lost, yes=yes)
            if draft and ask:
                checks.require(db, row)
                cohort_name = row.cohort_name
        with db.read() as session:
            load = quota.load(session, row.project, now=now)
    found = quota.warnings(load, now=now, about=row.id)
    quota.note(found)
    text = f"Binding {row.name!r} is {verb}: {timing.in_words(row)}."
    output.done(text, {**views.binding(row), "warnings": found}, as_json=as_json)
    if told:
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
            [
                Column("id", 3),
                Column("name"),
                Column("source", 5),
                Column("cohort", 4),
                Column("destination", 6),
                Column("attribute", 1),
                Column("members", 2),
                Column("runs"),
            ],
            [
                (
                    str(row.id),
                    row.name,
                    row.project.name,
                    row.cohort_shown,
                    row.destination.name,
                    row.attribute,
                    row.members_shown,
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
        ("cohort", row.cohort_shown),
        ("fed by", row.feed),
        ("destination", row.destination.name),
        ("attribute", row.attribute),
        ("attribute locked", output.when(row.attribute_locked_at, now)),
        ("members", row.members_shown),
        ("runs", timing.in_words(row)),
        ("removal guard", "the default" if guard is None else f"{guard} %"),
        *((name.replace("_", "-"), limit) for name in LIMITS if (limit := getattr(row, name)) is not None),
        ("paused", row.pause_reason or "yes" if row.paused else "no"),
        ("failures in a row", row.failures_in_row),
        ("added", row.created_at),
    ]
    if row.cron is not None:  # dates, chain and blackouts stand in its words
        pairs[10:10] = [
            ("cron", row.cron),
            ("next", output.local(next_start(row, now), row.timezone, now)),
            ("overlap", row.overlap),
            ("catch-up", f"{row.catchup}, within {row.catchup_window_seconds} s"),
            ("jitter", f"{row.jitter_seconds} s"),
        ]
    output.facts(pairs)


@app.command()
def update(
    ctx: typer.Context,
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    source: Annotated[
        str | None, typer.Option(autocompletion=names.sources, help=f"{SOURCE} {MOVES}")
    ] = None,
    cohort: Annotated[str | None, typer.Option(help=f"{COHORT} {MOVES}")] = None,
    destination: Annotated[
        str | None, typer.Option(autocompletion=names.destinations, help=f"{DESTINATION} {MOVES}")
    ] = None,
    attribute: Annotated[str | None, typer.Option(help=f"{ATTRIBUTE} {MOVES}")] = None,
    cron: Cron = None,
    on_demand: Annotated[bool, typer.Option("--on-demand", help="Remove the schedule and --after.")] = False,
    timezone: Annotated[str | None, typer.Option(help=TIMEZONE)] = None,
    start: Start = None,
    end: End = None,
    no_dates: Annotated[bool, typer.Option("--no-dates", help="Remove the first and the last day.")] = False,
    after: After = None,
    blackout: Blackout = None,
    no_blackout: Annotated[bool, typer.Option("--no-blackout", help="Push at any time.")] = False,
    overlap: Overlap = None,
    catchup: Catchup = None,
    catchup_window: Length = None,
    jitter: Jitter = None,
    max_removal_percent: Guard = None,
    max_growth_percent: Growth = None,
    max_first_sync: FirstSync = None,
    max_blank_percent: Blank = None,
    max_duplicate_percent: Duplicate = None,
    max_deviation_percent: Deviation = None,
    feed: Annotated[FeedName | None, typer.Option(help=FEED)] = None,
    no_check: NoCheck = False,
    yes: confirm.Yes = False,
    as_json: Json = False,
) -> None:
    """Change what is given, leave the rest.

    The vendors are asked first if the source, cohort, destination or attribute changes, which is possible until the
    first sync. You are asked before what Amplitude's webhook delivered of a cohort is forgotten.

    Example: cohort-sync binding update vips --cron '0 7 * * mon-fri'
    """
    changes.require_some(ctx)
    changed = BINDING.given(locals())  # the options by their names
    _refuse_both("--on-demand", on_demand, cron=cron, after=after)
    _refuse_both("--no-dates", no_dates, start=start, end=end)
    _refuse_both("--no-blackout", no_blackout, blackout=blackout)
    changed |= {edits.NEW_NAME: new_name} if new_name is not None else {}
    changed |= {"cron": None, "after": None} if on_demand else {}
    changed |= {"starts_on": None, "ends_on": None} if no_dates else {}
    changed |= {"blackouts": ""} if no_blackout else {}

    def change(session: Session, now: datetime) -> CohortBinding:
        return edits.update_binding(session, find(session, CohortBinding, name), changed, now=now)

    _store(
        change,
        "updated",
        ask=not no_check and bool(changed.keys() & edits.TARGET),
        told=feed == "webhook",
        as_json=as_json,
        yes=yes or not changed.keys() & {"feed", "source", "cohort_id"},
    )


def _refuse_both(option: str, given: bool, **others: object) -> None:
    for name, value in others.items():
        if given and value:
            raise typer.BadParameter(f"--{name} and {option} exclude each other")


app.command()(binding_life.remove)
app.command()(binding_life.pause)
app.command()(binding_life.resume)
