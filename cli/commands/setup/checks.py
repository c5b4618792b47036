"""`cohort-sync check`, and the same questions at the door of a binding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import context, names, output
from cli.config_file import vendors
from cli.exit_codes import Code
from models.database import Database
from models.errors import RateLimited, SyncError, TransientError
from models.naming import Row, every, find
from models.tables import AmplitudeProject, CohortBinding, Destination

if TYPE_CHECKING:
    from worker.context import Context
    from worker.inspection.check import Step

app = typer.Typer(add_completion=False)


@app.command()
def check(
    binding: Annotated[
        str | None,
        typer.Argument(autocompletion=names.bindings, help="The binding's name or id (default: all)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Every precondition of a sync by name, with its remedy.

    Touches nothing and spends no download. Exits 5 if anything fails; a warning does not fail.

    Example: cohort-sync check vips
    """
    with context.database() as db:
        with db.read() as session:
            rows = [find(session, CohortBinding, binding)] if binding else every(session, CohortBinding)
        results: list[tuple[CohortBinding, list[Step]]] = []
        if rows:
            with vendors.opened(db) as outside:
                results = list(zip(rows, steps_of(outside, rows), strict=True))
    good = all(_passed(steps) for _, steps in results)
    if as_json:
        output.emit({"ok": good, "bindings": [_document(row, steps) for row, steps in results]})
    else:
        _print(results)
    if not good:
        raise typer.Exit(Code.CHECK_FAILED)


def steps_of(outside: Context, rows: Sequence[CohortBinding]) -> list[list[Step]]:
    """All steps of each binding, stored or a draft; what stops the questions is a failed step as well."""
    from worker.inspection.check import Step, check_bindings

    try:
        return check_bindings(outside, rows)
    except SyncError as error:
        return [[Step("vendors", "fail", error.message, error.code, error.remedy, error)] for _ in rows]


def failures(
    db: Database, drafts: Sequence[CohortBinding], others: Sequence[AmplitudeProject | Destination] = ()
) -> list[tuple[Row, SyncError]]:
    """Ask the vendors about bindings that are not stored yet, and whether they take the credentials of the `others`:
    what fails, and for which one first.
    """
    try:
        with vendors.opened(db) as outside:
            results: list[tuple[Row, list[Step]]] = list(zip(drafts, steps_of(outside, drafts), strict=True))
            results += [(row, _access(outside, row)) for row in others]
    except TransientError as error:
        raise _at_the_door(error) from error
    found: dict[str, tuple[Row, SyncError]] = {}
    advice: set[str] = set()
    for draft, steps in results:
        for step in steps:
            if step.error is not None:
                found.setdefault(str(step.error), (draft, _at_the_door(step.error)))
            elif step.status == "warn":
                advice.add(f"note: {step.name}: {step.detail.rstrip('.')}. {step.remedy or ''}".rstrip())
    for line in sorted(advice):
        output.note(line)
    return list(found.values())


def require(db: Database, draft: Row) -> None:
    """The same of one, whose first failing step is raised."""
    for _, error in failures(db, [draft]) if isinstance(draft, CohortBinding) else failures(db, [], [draft]):
        raise error


def _access(outside: Context, row: AmplitudeProject | Destination) -> list[Step]:
    from worker.inspection.check import check_access

    return check_access(outside, row)


def _at_the_door(error: SyncError) -> SyncError:
    """What would pass by itself for a run: here a person has to come again."""
    if not isinstance(error, TransientError | RateLimited):
        return error
    if error.code == "BROKER_UNREACHABLE":
        return TransientError("BROKER_NEEDED", error.detail)
    vendor = "Marketing Cloud" if error.code.startswith("MC") else "Amplitude"
    if not error.code.startswith(("MC", "AMPLITUDE")):
        return error  # of our own: the queue, the disk
    return TransientError("VENDOR_UNASKED", vendor=vendor, problem=error.code, why=error.message.rstrip("."))


def _passed(steps: Sequence[Step]) -> bool:
    return all(step.status != "fail" for step in steps)


def _document(binding: CohortBinding, steps: Sequence[Step]) -> dict[str, Any]:
    return {
        "binding": binding.name,
        "ok": _passed(steps),
        "steps": [document(step) for step in steps],
    }


def document(step: Step) -> dict[str, Any]:
    """One precondition."""
    return {
        "name": step.name,
        "status": step.status,
        "detail": step.detail,
        "code": step.code,
        "remedy": step.remedy,
    }


def _print(results: Sequence[tuple[CohortBinding, list[Step]]]) -> None:
    several = len(results) > 1
    output.table(
        [*["binding"] * several, "check", "result", "detail"],
        [
            [*[row.name] * several, step.name, step.status, step.detail]
            for row, steps in results
            for step in steps
        ],
        empty="There is no binding yet: `cohort-sync binding add`.",
    )
    for row, steps in results:
        for step in steps:
            if step.remedy and step.status != "ok":
                code = f" {step.code}" if step.code else ""
                output.say(f"{row.name}, {step.name}{code}: {step.remedy}")
