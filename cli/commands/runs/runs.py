"""`run`, `runs`, `show`, `cancel`, `approve`, `reject`: one sync of a binding, made and looked at."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import context, output, views
from cli.commands.runs import wait
from cli.commands.runs.report import report, state_of, took
from cli.config_file.timing import moment
from cli.tables import Column, State
from models import forgotten
from models.database import Database
from models.errors import CATALOGUE, ConfigurationError, ContractError
from models.membership import snapshots
from models.membership.snapshots import FreshnessPolicy
from models.naming import find
from models.observability import overview
from models.runs import lifecycle
from models.runs.missed import counted
from models.secrets import Keyring
from models.tables import CohortBinding, SyncRun
from models.types import Feed, RunState, Trigger

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
AnyRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, a binding's name for its newest run, or `latest`.")
]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
KEY_MAX = 200
SINCE = "Only runs created from then on: a length of time ago such as 90m, 6h or 7d, or a date with or without a time."


@app.command()
def run(
    binding: Annotated[str, typer.Argument(help="The binding's name or id.")],
    waited: Annotated[bool, typer.Option("--wait", help="Follow the run, and exit with its code.")] = False,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            help="Use this cohort file (CSV, plain or gzip) instead of a download.",
        ),
    ] = None,
    queue: Annotated[
        bool, typer.Option("--queue", help="Wait behind an unfinished run instead of being refused.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Request a download even if the month's quota is used up.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="Read the data extension first, so that unknown flags are removed too."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Go past the guards; the audit log says who did.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeating the command with the same key creates no second run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sync a binding now, through the queue.

    Example: cohort-sync run vips --wait

    With --wait it exits 0 if the run succeeded, 1 if it failed, 3 if rows were rejected, 4 if it is held.
    """
    if idempotency_key is not None and not 0 < len(idempotency_key) <= KEY_MAX:
        raise typer.BadParameter(f"1 to {KEY_MAX} characters", param_hint="--idempotency-key")
    with context.database() as db:
        made = _dispatch(
            db, binding, snapshot, idempotency_key, queue=queue, force=force, full=full, approved=yes
        )
        if made.state == RunState.QUEUED:
            publish(made)
        if waited:
            wait.follow(db, made.id, as_json=as_json)
    text = f"Run {made.id} of {made.binding.name!r} is {made.state}: `cohort-sync show {made.id}`."
    output.done(text, views.run(made), as_json=as_json)


@app.command("runs")
def list_(
    binding: Annotated[str | None, typer.Argument(help="The binding's name or id (default: all).")] = None,
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
        rows = lifecycle.list_runs(
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
def watch(run: AnyRun = lifecycle.LATEST, as_json: Json = False) -> None:
    """Follow a run from where it is now to its end, and exit with its code.

    Example: cohort-sync watch vips

    Ctrl-C ends the watching, not the run.
    """
    with context.database() as db:
        with db.read() as session:
            found = lifecycle.find_run(session, run).id
        wait.follow(db, found, as_json=as_json)


@app.command()
def show(run: AnyRun, as_json: Json = False) -> None:
    """One run: its counts, requests, error and rejections.

    Example: cohort-sync show latest
    """
    with context.database() as db, db.read() as session:
        row = lifecycle.find_run(session, run)
        reasons = overview.rejections(session, row.id)
    if as_json:
        output.emit(views.run(row))
    else:
        report(row, context.now(), reasons)


@app.command()
def cancel(run: RunId, as_json: Json = False) -> None:
    """Stop a run. What was sent is followed to its end first; nothing more is sent.

    Example: cohort-sync cancel 12
    """
    with context.database() as db:
        with db.write() as session:
            row = lifecycle.cancel(session, run, now=context.now(), actor=context.actor())
        if row.state == RunState.WAITING:
            publish(row, quietly=True)
    finished = RunState(row.state).finished
    text = f"Run {row.id} is cancelled." if finished else f"Run {row.id} ends after what it has sent already."
    output.done(text, views.run(row), as_json=as_json)


@app.command()
def approve(run: RunId, reason: Reason = "", as_json: Json = False) -> None:
    """Let a run go on that a guard has held.

    Example: cohort-sync approve 12 --reason 'asked the campaign team'
    """
    with context.database() as db:
        with db.write() as session:
            row = lifecycle.approve(session, run, now=context.now(), actor=context.actor(), reason=reason)
        publish(row)
    output.done(f"Run {row.id} is approved and goes on.", views.run(row), as_json=as_json)


@app.command()
def reject(run: RunId, reason: Reason = "", as_json: Json = False) -> None:
    """End a run that a guard has held; nothing is pushed.

    Example: cohort-sync reject 12 --reason 'asked the campaign team'
    """
    with context.database() as db, db.write() as session:
        row = lifecycle.reject(session, run, now=context.now(), actor=context.actor(), reason=reason)
    output.done(f"Run {row.id} is rejected; nothing was pushed.", views.run(row), as_json=as_json)


def _dispatch(
    db: Database,
    name: str,
    file: Path | None,
    idempotency_key: str | None,
    *,
    queue: bool,
    force: bool,
    full: bool,
    approved: bool,
) -> SyncRun:
    now = context.now()
    if file is not None:
        with db.read() as session:
            asked = find(session, CohortBinding, name)
        if asked.feed == Feed.WEBHOOK:
            raise ConfigurationError("WEBHOOK_FED", binding=asked.name)
        _inspect(file, asked.destination.contact_key_property)
    with db.write() as session:
        binding = find(session, CohortBinding, name)
        if file is None and not force:
            snapshots.require_quota(session, binding, now=now, fresh=FreshnessPolicy.of(db.settings))
        made = lifecycle.dispatch(
            session,
            binding,
            trigger=Trigger.MANUAL,
            scheduled_for=now,
            now=now,
            full=full,
            force=force,
            queue=queue,
            approved=approved,
            idempotency_key=idempotency_key,
            actor=context.actor(),
        )
        if file is not None and made.created_at == now:
            made.snapshot_id = _store(session, binding, file, now)
            session.flush()
    return made


def _store(session: Session, binding: CohortBinding, file: Path, now: datetime) -> int:
    """The file as it is; without who is forgotten, where somebody is."""
    import tempfile

    from worker.membership.without import without

    gone = forgotten.enforced(session, Keyring.load(context.settings()))
    with tempfile.TemporaryDirectory(prefix="cohort-sync-") as folder:
        if gone:
            column, limit = binding.destination.contact_key_property, context.settings().snapshot_max_bytes
            allowed = Path(folder) / "allowed.csv"
            without(file, allowed, column, gone.__contains__, max_bytes=limit, workdir=Path(folder))
            file = allowed
        with file.open("rb") as opened:
            return snapshots.store_upload(session, binding, opened, now=now).id


def _inspect(file: Path, prop: str) -> None:
    """Refuse what is no cohort file before anything is stored."""
    import tempfile

    from worker.membership.snapshot_file import inspect

    with tempfile.TemporaryDirectory(prefix="cohort-sync-") as folder:
        try:
            inspect(file, prop, max_bytes=context.settings().snapshot_max_bytes, workdir=Path(folder))
        except ContractError as error:
            raise ConfigurationError(error.code, error.detail, **error.context) from None


def publish(row: SyncRun, *, quietly: bool = False) -> None:
    """Wake a worker. If the queue is away the run stays where it is: a scheduler publishes it later."""
    from config import queue

    try:
        if context.queue_answers():  # kombu would try for six seconds
            app = queue.make_app(context.settings())
            queue.publish(app, row.id, row.stage, binding=row.binding.name)
            return
    except queue.QueueUnavailableError:
        pass
    if not quietly:
        what, remedy = CATALOGUE["BROKER_UNREACHABLE"]
        output.note(f"warning BROKER_UNREACHABLE: {what} The run stays queued.")
        output.note(f"what to do: {remedy}")
