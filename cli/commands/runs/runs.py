"""`runs`, `watch`, `show`, `cancel`, `approve`, `reject`: runs found, followed and decided about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from cli import context, names, output, timeline, views
from cli.commands.runs import wait
from cli.commands.runs.report import report, state_of, took
from cli.commands.runs.run import publish
from cli.config_file.timing import moment
from cli.tables import Column, State
from models.naming import find
from models.observability import overview, run_history
from models.runs import batches, decisions
from models.runs.missed import counted
from models.tables import CohortBinding
from models.types import UNFINISHED, RunState, Trigger

app = typer.Typer(add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AnyRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        autocompletion=names.runs,
        help="A run's id, a binding's name for its newest run, or `latest`.",
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
SINCE = "Only runs created from then on: a length of time ago such as 90m, 6h or 7d, or a date with or without a time."


HELD = (RunState.HELD,)


@app.command("runs")
def list_(
    binding: Annotated[
        str | None,
        typer.Argument(autocompletion=names.bindings, help="The binding's name or id (default: all)."),
    ] = None,
    state: Annotated[list[RunState] | None, typer.Option(help="Only runs in this state; repeatable.")] = None,
    trigger: Annotated[list[Trigger] | None, typer.Option(help="Only runs made by this; repeatable.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help=SINCE)] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only runs created before; as --since.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 20,
    as_json: Json = False,
) -> None:
    """The newest runs first.

    Example: cohort-sync runs vips --state failed --since 7d
    """
    now = context.now()
    narrowed = any((binding, state, trigger, since, until))
    with context.database() as db, db.read() as session:
        rows = decisions.list_runs(
            session,
            find(session, CohortBinding, binding) if binding is not None else None,
            states=state,
            triggers=trigger,
            since=moment(since, now, "--since"),
            until=moment(until, now, "--until"),
            limit=limit,
        )
    if as_json:
        output.emit([views.run(row) for row in rows])
        return
    output.table(
        [
            Column("run"),
            Column("binding"),
            Column("state"),
            Column("started", 1),
            Column("took", 3),
            Column("members", 4),
            Column("entered", 2),
            Column("exited", 2),
            Column("rejected", 2),
            Column("trigger", 5),
            Column("missed", 6),
            Column("error", 1),
        ],
        [
            (
                str(row.id),
                row.binding.name,
                State(state_of(row)),
                row.started_at,
                took(row, now),
                row.members,
                row.entered,
                row.exited,
                row.rejected or None,
                row.trigger,
                counted(row.missed),
                row.error_code,
            )
            for row in rows
        ],
        empty="There is no such run." if narrowed else "There is no run yet: `cohort-sync run BINDING`.",
        now=now,
    )


@app.command()
def watch(run: AnyRun = decisions.LATEST, as_json: Json = False) -> None:
    """Follow a run from where it is now to its end, and exit with its code.

    Example: cohort-sync watch vips

    Ctrl-C ends the watching, not the run.
    """
    with context.database() as db:
        with db.read() as session:
            found = _meant(session, run, UNFINISHED)
        wait.follow(db, found, as_json=as_json)


@app.command()
def show(run: AnyRun, as_json: Json = False) -> None:
    """One run: its counts, its stages' timeline, batches, error, and rejected rows by reason.

    Example: cohort-sync show latest
    """
    with context.database() as db, db.read() as session:
        row = decisions.find_run(session, run)
        reasons = overview.rejections(session, row.id)
        claims = run_history.claims(session, row.id)
        counts = batches.count_by_state(session, row.id)
    now = context.now()
    if as_json:
        more = {
            "cohort": row.binding.cohort_id,
            "cohort_name": row.binding.cohort_name,
            "timeline": [views.step(step) for step in timeline.steps(row, claims, now)],
            "batches": counts,
            "rejections": [asdict(reason) for reason in reasons],
        }
        output.emit(views.run(row) | more)
    else:
        report(row, now, reasons, steps=timeline.steps(row, claims, now), batches=counts)


@app.command()
def cancel(run: AnyRun, as_json: Json = False) -> None:
    """Stop a run. What was sent is followed to its end first; nothing more is sent.

    Example: cohort-sync cancel 12
    """
    with context.database() as db:
        with db.write() as session:
            row = decisions.cancel(
                session, _meant(session, run, UNFINISHED), now=context.now(), actor=context.actor()
            )
        if row.state == RunState.WAITING:
            publish(row, quietly=True)
    finished = row.state.finished
    text = f"Run {row.id} is cancelled." if finished else f"Run {row.id} ends after what it has sent already."
    output.done(text, views.run(row), as_json=as_json)


@app.command()
def approve(run: AnyRun, reason: Reason = "", as_json: Json = False) -> None:
    """Let a run go on that a guard has held.

    Example: cohort-sync approve 12 --reason 'asked the campaign team'
    """
    with context.database() as db:
        with db.write() as session:
            row = decisions.approve(
                session, _meant(session, run, HELD), now=context.now(), actor=context.actor(), reason=reason
            )
        publish(row)
    output.done(f"Run {row.id} is approved and goes on.", views.run(row), as_json=as_json)


@app.command()
def reject(run: AnyRun, reason: Reason = "", as_json: Json = False) -> None:
    """End a run that a guard has held; nothing is pushed.

    Example: cohort-sync reject 12 --reason 'asked the campaign team'
    """
    with context.database() as db, db.write() as session:
        row = decisions.reject(
            session, _meant(session, run, HELD), now=context.now(), actor=context.actor(), reason=reason
        )
    output.done(f"Run {row.id} is rejected; nothing was pushed.", views.run(row), as_json=as_json)


def _meant(session: Session, name: str, states: Collection[RunState]) -> int:
    """The run that a person means where only one in these states can be."""
    return decisions.find_run(session, name, first=states).id
