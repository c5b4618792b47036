"""`cohort-sync binding …`: one cohort kept in one attribute."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from cli import binding_life, checks, context, output, timing, views
from cli.binding_options import (
    CATCHUP,
    FEED,
    JITTER,
    NEW_SYNC,
    OVERLAP,
    TIMEZONE,
    WINDOW,
    After,
    Blackout,
    Catchup,
    CatchupName,
    Cron,
    End,
    FeedName,
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
from models import bindings
from models.database import Database
from models.naming import every, find
from models.tables import CohortBinding
from models.types import Feed

app = typer.Typer(no_args_is_help=True)


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
        starts_on=timing.day("start", start),
        ends_on=timing.day("end", end),
        blackouts=timing.windows(blackout or []),
        now=now,
    )
    timing.require_occurrence(planned)
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
                    after=after,
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
        found = _warnings(db, row, now)
    _done(row, "added", found, as_json=as_json)
    if feed == "webhook":
        output.note(NEW_SYNC)


def _warnings(db: Database, row: CohortBinding, now: datetime) -> list[dict[str, str]]:
    from cli import quota

    with db.read() as session:
        found = quota.warnings(session, row, now=now)
    quota.note(found)
    return found


def _done(row: CohortBinding, verb: str, found: list[dict[str, str]], *, as_json: bool) -> None:
    text = f"Binding {row.name!r} is {verb}: {timing.in_words(row)}."
    output.done(text, {**views.binding(row), "warnings": found}, as_json=as_json)


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
    if row.cron is not None:  # dates, chain and blackouts stand in its words
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
    cron: Cron = None,
    on_demand: Annotated[bool, typer.Option("--on-demand", help="No schedule and no --after.")] = False,
    timezone: Annotated[str | None, typer.Option(help=TIMEZONE)] = None,
    start: Start = None,
    end: End = None,
    no_dates: Annotated[bool, typer.Option("--no-dates", help="Neither a first nor a last day.")] = False,
    after: After = None,
    blackout: Blackout = None,
    no_blackout: Annotated[bool, typer.Option("--no-blackout", help="Push at any time.")] = False,
    overlap: Overlap = None,
    catchup: Catchup = None,
    catchup_window: Length = None,
    jitter: Jitter = None,
    max_removal_percent: Guard = None,
    feed: Annotated[FeedName | None, typer.Option(help=FEED)] = None,
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Change what is given, leave the rest.

    The vendors are asked first when the cohort or the attribute changes. Once synced to, neither can be changed.

    Example: cohort-sync binding update vips --cron '0 7 * * mon-fri'
    """
    _refuse_both("--on-demand", on_demand, cron=cron, after=after)
    _refuse_both("--no-dates", no_dates, start=start, end=end)
    _refuse_both("--no-blackout", no_blackout, blackout=blackout)
    now = context.now()
    changed: dict[str, object] = {
        "name": new_name,
        "cron": cron,
        "timezone": timezone,
        "overlap": overlap,
        "catchup": catchup,
        "catchup_window_seconds": catchup_window and timing.seconds("catchup_window", catchup_window),
        "jitter_seconds": jitter and timing.seconds("jitter", jitter),
        "starts_on": timing.day("start", start),
        "ends_on": timing.day("end", end),
        "blackouts": timing.windows(blackout) if blackout else None,
    }
    changed = {key: value for key, value in changed.items() if value is not None}
    if on_demand:
        changed["cron"], after = None, ""
    if no_dates:
        changed |= {"starts_on": None, "ends_on": None}
    if no_blackout:
        changed["blackouts"] = ""
    ask = not no_check and (cohort is not None or attribute is not None)
    with context.database() as db:
        for draft in (True, False) if ask else (False,):
            with db.write() as session:
                stored = find(session, CohortBinding, name)
                planned = timing.timing_of(stored, now, **changed) if changed else None
                if planned is not None and changed.keys() & {"cron", "starts_on", "ends_on"}:
                    timing.require_occurrence(planned)
                row = bindings.update_binding(
                    session,
                    name,
                    new_name=new_name,
                    cohort_id=cohort,
                    attribute=attribute,
                    timing=planned,
                    after=after,
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
        found = _warnings(db, row, now)
    _done(row, "updated", found, as_json=as_json)
    if feed == "webhook":
        output.note(NEW_SYNC)


def _refuse_both(option: str, given: bool, **others: object) -> None:
    for name, value in others.items():
        if given and value:
            raise typer.BadParameter(f"--{name} and {option} exclude each other")


app.command()(binding_life.remove)
app.command()(binding_life.pause)
app.command()(binding_life.resume)
