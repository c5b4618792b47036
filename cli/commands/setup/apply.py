"""`cohort-sync apply`: sources, destinations and bindings as one file, planned and applied like infrastructure.

What it asks, what it prints, and its exit code. `cli/config_file/` reads the file (`parser`), finds what has to change
(`differ`) and carries it out (`transaction`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from cli import confirm, context, output
from cli.commands.setup import checks
from cli.commands.setup.binding_options import NEW_SYNC
from cli.config_file import parser, quota
from cli.config_file import transaction as drafts
from cli.config_file.differ import Change, ChangeSet
from cli.config_file.fields import KINDS
from cli.config_file.parser import Mistake, ParsedFile
from cli.exit_codes import Code
from models.errors import ConfigurationError, SyncError
from models.naming import Row
from models.types import Feed

app = typer.Typer(add_completion=False)

SIGNS = {"add": "+", "update": "~", "remove": "-"}


@app.command()
def apply(
    file: Annotated[str, typer.Argument(help="The file; - reads standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what the file's sections do not list.")
    ] = False,
    yes: confirm.Yes = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Skip the checks at the vendors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make what is set up what a file says: all of it, or nothing (docs/apply.md).

    All mistakes are reported at once, each with its place. The vendors are asked about what is new or refers to
    something else than before.

    Example: cohort-sync apply cohorts.yaml --dry-run
    """
    now = context.now()
    wanted = parser.read(parser.load(file))
    with context.database() as db:
        draft = drafts.attempt(db, wanted, prune=prune, now=now)
        _refuse("FILE_REFUSED", file, draft.mistakes, Code.USAGE, as_json=as_json)
        if (draft.asked or draft.others) and not no_check:
            found = checks.failures(db, draft.asked, draft.others)
            unmet = [_unmet(wanted, *failure) for failure in found]
            _refuse("CHECKS_FAILED", file, unmet, Code.CHECK_FAILED, as_json=as_json)
        warnings = [one for load in draft.loads for one in quota.warnings(load, now=now)]
        if not as_json:
            _print(draft.plan)
        quota.note(warnings)
        applied = bool(draft.plan.changes) and not dry_run
        if applied:
            _confirm(draft.plan, draft.lost, file, yes=yes)
            drafts.keep(db, wanted, draft, prune=prune, now=now, file=file)
    document = {**_document(draft.plan), "applied": applied, "warnings": warnings}
    output.done(_summary(draft.plan, dry_run=dry_run), document, as_json=as_json)
    if applied and any(change.values.get("feed") == Feed.WEBHOOK for change in draft.plan.changes):
        output.note(NEW_SYNC)


def _refuse(code: str, file: str, mistakes: Sequence[Mistake], exit_code: Code, *, as_json: bool) -> None:
    """Say all mistakes, each with its place, and leave."""
    if not mistakes:
        return
    whole = ConfigurationError(code, file=file, count=len(mistakes))
    if as_json:
        found = [
            {
                "path": one.path,
                "line": one.line,
                "code": one.error.code,
                "message": one.error.message,
                "remedy": one.error.remedy,
            }
            for one in mistakes
        ]
        told = {"code": code, "message": whole.message, "remedy": whole.remedy, "mistakes": found}
        output.emit({"error": told})
    else:
        for one in mistakes:
            line = f", line {one.line}" if one.line else ""
            output.error(
                one.error.code, f"{one.path}{line}: {one.error.message}", one.error.remedy, as_json=False
            )
        output.error(code, whole.message, whole.remedy, as_json=False)
    raise typer.Exit(exit_code)


def _unmet(wanted: ParsedFile, row: Row, error: SyncError) -> Mistake:
    """What a vendor said of one, at its place, if the file names it."""
    entries = {entry.node: entry for entry in wanted.entries}
    kind = next(kind for kind in KINDS if isinstance(row, kind.table))
    entry = entries.get((kind.name, row.name_key))
    if entry is None:
        return Mistake(f"{kind.section}.{row.name}", None, error)
    setting = next((name for name in ("cohort", "attribute") if name in error.context), "")
    return entry.mistake(error, setting)


def _confirm(plan: ChangeSet, lost: Sequence[str], file: str, *, yes: bool) -> None:
    """What is removed, and of which cohorts the webhook's list is `lost` with it, is one question."""
    names = ", ".join(
        f"{change.entry.kind.name} {change.entry.name}"
        for change in plan.changes
        if change.action == "remove"
    )
    if not names:
        confirm.require_for_lists(lost, yes=yes)
    else:
        also = f" What Amplitude's webhook told of {', '.join(lost)} is forgotten." if lost else ""
        confirm.require(
            f"Remove {names}? The flags in Marketing Cloud stay as they are.{also}",
            doing=f"Removing {names}",
            yes=yes,
            refusal=ConfigurationError("PRUNE_UNCONFIRMED", file=file, names=names),
        )


def _print(plan: ChangeSet) -> None:
    for change in plan.changes:
        output.say(f"{SIGNS[change.action]} {change.entry.kind.name} {change.entry.name}")
        for line in _lines(change):
            output.say(f"    {line}")
    if plan.left:
        names = ", ".join(f"{kind.name} {name}" for kind, name in plan.left)
        output.say(f"not in the file, left alone: {names}")


def _lines(change: Change) -> Iterator[str]:
    for name, told in change.fields.items():
        if isinstance(told, str):
            yield f"{name}: {told}"
        elif "old" in told:
            yield f"{name}: {_word(told['old'])} → {_word(told['new'])}"
        else:
            yield f"{name}: {_word(told['new'])}"


def _word(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else "none" if value is None else str(value)


def _summary(plan: ChangeSet, *, dry_run: bool) -> str:
    count = {action: sum(change.action == action for change in plan.changes) for action in SIGNS}
    same = f"{len(plan.unchanged):,} unchanged"
    if not plan.changes:
        return f"Nothing to do: {same}."
    done = f"{count['add']:,} to add, {count['update']:,} to change, {count['remove']:,} to remove, {same}"
    if dry_run:
        return f"Plan: {done}. Nothing was changed."
    return "Applied: {add:,} added, {update:,} changed, {remove:,} removed, ".format(**count) + f"{same}."


def _document(plan: ChangeSet) -> dict[str, Any]:
    return {
        "changes": [
            {
                "action": change.action,
                "kind": change.entry.kind.name,
                "name": change.entry.name,
                "fields": change.fields,
            }
            for change in plan.changes
        ],
        "unchanged": [{"kind": entry.kind.name, "name": entry.name} for entry in plan.unchanged],
        "left": [{"kind": kind.name, "name": name} for kind, name in plan.left],
    }
