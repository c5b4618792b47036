"""`run`: one sync of a binding, made and published."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import confirm, context, names, output, views
from cli.commands.runs import wait
from models.data_protection import forgotten
from models.database import Database
from models.errors import ConfigurationError, ContractError, TerminalError
from models.membership import snapshots
from models.membership.snapshots import FreshnessPolicy
from models.naming import find
from models.runs import manual
from models.secrets import Keyring
from models.tables import CohortBinding, Snapshot, SyncRun
from models.types import Feed, RunState
from models.wording import plural

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def run(
    binding: Annotated[str, typer.Argument(autocompletion=names.bindings, help="The binding's name or id.")],
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
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask for a new download even if there is one of the last minutes."),
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="Read the data extension first, so that unknown flags are removed too."),
    ] = False,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear", help="Set every flag to false, also those nobody knows of. The next run flags again."
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Pass the guards; the audit log says who did. With --clear: do not ask."
        ),
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeating the command with the same key creates no second run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sync a binding now, through the queue.

    Example: cohort-sync run vips --wait

    A download of the cohort that ended in the last five minutes is used again, so that trying out costs one.

    With --wait it exits 0 if the run succeeded, 1 if it failed, 3 if rows were rejected, 4 if it is held.
    """
    if idempotency_key is not None and not 0 < len(idempotency_key) <= manual.KEY_MAX:
        raise typer.BadParameter(f"1 to {manual.KEY_MAX} characters", param_hint="--idempotency-key")
    if clear and snapshot is not None:
        raise typer.BadParameter("--clear and --snapshot exclude each other")
    with context.database() as db:
        if clear:
            _confirm_clearing(db, binding, yes=yes)
        made = _dispatch(
            db,
            binding,
            snapshot,
            idempotency_key,
            queue=queue,
            force=force or clear,
            fresh=fresh,
            full=full or clear,
            clear=clear,
            approved=yes and not clear,
        )
        if made.state == RunState.QUEUED:
            publish(made)
        if waited:
            wait.follow(db, made.id, as_json=as_json)
    text = f"Run {made.id} of {made.binding.name!r} is {made.state}: `cohort-sync show {made.id}`."
    output.done(text, views.run(made), as_json=as_json)


def _dispatch(
    db: Database,
    name: str,
    file: Path | None,
    idempotency_key: str | None,
    *,
    queue: bool,
    force: bool,
    fresh: bool,
    full: bool,
    clear: bool,
    approved: bool,
) -> SyncRun:
    now = context.now()
    snapshot: manual.MakeSnapshot | None = None
    if clear:
        snapshot = partial(snapshots.of_nobody, now=now)
    if file is not None:
        with db.read() as session:
            asked = find(session, CohortBinding, name)
        if asked.feed == Feed.WEBHOOK:
            raise ConfigurationError("WEBHOOK_FED", binding=asked.name)
        _inspect(file, asked.destination.contact_key_property)
        snapshot = partial(_store, file=file, now=now)
    with db.write() as session:
        made = manual.make(
            session,
            name,
            fresh=FreshnessPolicy.of(db.settings),
            now=now,
            actor=context.actor(),
            queue=queue,
            force=force,
            full=full,
            approved=approved,
            idempotency_key=idempotency_key,
            snapshot=snapshot,
            anew=fresh,
        )
        if snapshot is None and made.snapshot_id is not None and made.created_at == now:
            note_reuse(session.get_one(Snapshot, made.snapshot_id), now)
    return made


def note_reuse(download: Snapshot, now: datetime) -> None:
    """Say that no new one is asked for."""
    age = output.span(now - (download.completed_at or now))
    output.note(f"note: the download of {age} ago is used again; `--fresh` asks for a new one")


def _confirm_clearing(db: Database, name: str, *, yes: bool) -> None:
    with db.read() as session:
        found = find(session, CohortBinding, name)
    confirm.require(
        f"Set {found.attribute!r} to false for everybody, {plural(found.members_shown, 'member')} of {found.name!r}?",
        doing=f"Setting every flag of binding {found.name!r} to false",
        yes=yes,
    )


def _store(session: Session, binding: CohortBinding, *, file: Path, now: datetime) -> Snapshot:
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
            return snapshots.store_upload(session, binding, opened, now=now)


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
    from config import queue, queue_names

    try:
        if context.queue_answers():  # kombu would try for six seconds
            app = queue.make_app(context.settings())
            queue.publish(app, row.id, row.stage, binding=row.binding.name)
            return
    except queue_names.QueueUnavailableError:
        pass
    if not quietly:
        away = TerminalError("BROKER_UNREACHABLE")
        output.note(f"warning {away.code}: {away.message} The run stays queued.")
        output.note(f"what to do: {away.remedy}")
