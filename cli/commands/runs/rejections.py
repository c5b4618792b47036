"""`cohort-sync rejections`: the rows of a run that Marketing Cloud refused, each with its reason."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli import context, output
from cli.commands.runs.runs import AnyRun
from cli.tables import Column
from models import audit
from models.contact_keys.masking import masked
from models.data_protection.retention import Retention
from models.database import Database
from models.observability import overview
from models.runs import decisions, rejections
from models.tables import CohortBinding, SyncRun

app = typer.Typer(add_completion=False)

HEAD = ("direction", "code", "message", "key", "first_seen", "last_seen", "count")
SHOWN = 20


@app.command("rejections")
def list_(
    run: AnyRun,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every row as CSV.")] = False,
    show_keys: Annotated[
        bool,
        typer.Option(
            "--show-keys", help="Show contact keys in full: personal data; the audit log says who did."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """The rows that Marketing Cloud refused in a run, by reason. The next run tries them again.

    A row belongs to the last run that met it, so an older run's list may be empty. Keys are masked.

    Example: cohort-sync rejections latest --csv --show-keys > rejected.csv
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    with context.database() as db:
        with db.read() as session:
            found = decisions.find_run(session, run)
            reasons = overview.rejections(session, found.id)
        if show_keys:
            note_keys_shown(db, found.binding, "rejections", run=found.id)
        if as_csv:
            _csv(db, found, keys=show_keys)
        elif as_json:
            output.emit([dict(zip(HEAD, row, strict=True)) for row in _rows(db, found, keys=show_keys)])
        else:
            _print(db, found, reasons, keys=show_keys)


def note_keys_shown(db: Database, binding: CohortBinding, command: str, **facts: Any) -> None:
    """Write down who was shown contact keys, before they are."""
    with db.write() as session:
        audit.record(
            session,
            now=context.now(),
            actor=context.actor(),
            action="show keys",
            kind="binding",
            name=binding.name,
            binding_id=binding.id,
            command=command,
            **facts,
        )


def _rows(db: Database, run: SyncRun, *, keys: bool) -> Iterator[tuple[object, ...]]:
    with db.read() as session:
        for row in rejections.of_run(session, run.id):
            key = row.key if keys else masked(row.key)
            seen = output.iso(row.first_seen), output.iso(row.last_seen)
            yield row.direction, row.code, row.message, key, *seen, row.count


def _csv(db: Database, run: SyncRun, *, keys: bool) -> None:
    written = csv.writer(sys.stdout, lineterminator="\n")
    written.writerow(HEAD)
    written.writerows(_rows(db, run, keys=keys))


def _print(db: Database, run: SyncRun, reasons: list[overview.Reason], *, keys: bool) -> None:
    output.table(
        [Column("rows"), Column("direction", 1), Column("code"), Column("message")],
        [(one.rows, one.direction, one.code, one.message) for one in reasons],
        empty=_empty(run),
    )
    if not reasons:
        return
    shown = [row for row, _ in zip(_rows(db, run, keys=keys), range(SHOWN), strict=False)]
    output.say()
    output.table(
        [Column("key"), Column("direction", 1), Column("code"), Column("times", 2), Column("message")],
        [(key, direction, code, count, message) for direction, code, message, key, _, _, count in shown],
        empty="",
    )
    if (more := sum(one.rows for one in reasons) - len(shown)) > 0:
        output.say(f"… and {more:,} more; `--csv` has them all.")


def _empty(run: SyncRun) -> str:
    if not run.rejected:
        return f"No row of run {run.id} was refused."
    kept = Retention.at(context.settings(), context.now()).batches
    if kept is not None and run.finished_at is not None and run.finished_at < kept:
        return f"{run.rejected:,} refused; which they were is no longer kept."
    return f"{run.rejected:,} refused; newer runs have met them since, or had them accepted."
