"""`cohort-sync forget`: one person is erased, here and everywhere that this machine stores anything.

The key that was typed is neither shown nor logged. A person is first marked as forgotten, so that nothing of them is
stored any more, then their flags are set to false by runs like any other, and then they are removed. Cut off anywhere
the command is repeated: it goes on where it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer
from sqlalchemy import select

from cli import confirm, context, output
from cli.commands.runs.run import publish
from cli.commands.runs.why import read_key
from models import audit
from models.contact_keys.comparison import comparison_key
from models.data_protection import erasure, forgotten
from models.database import Database
from models.errors import ContractError, TransientError
from models.membership import snapshots
from models.naming import every
from models.private_files import temporary_dir
from models.runs import decisions, manual
from models.tables import CohortBinding, ForgottenContact, SyncRun
from models.types import UNFINISHED_WORDS, RunState

app = typer.Typer(add_completion=False)

LOOK_SECONDS = 0.2
TRIES = 3  # a run that was under way already may not have known
Flags = Literal["false", "left"]


@app.command()
def forget(
    contact_key: Annotated[
        str | None,
        typer.Argument(
            help="The person's contact key; - reads it from standard input, which keeps it out of the shell's history."
        ),
    ] = None,
    flags: Annotated[
        Flags,
        typer.Option(help="Set their flags in Marketing Cloud to false first, or leave them as they are."),
    ] = "false",
    listing: Annotated[
        bool, typer.Option("--list", help="Who is forgotten: when and by whom, never the key.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let the person be stored again.")] = False,
    wait_seconds: Annotated[
        int, typer.Option(min=0, help="How long to wait for the runs that set flags to false.")
    ] = 300,
    yes: confirm.Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Erase one person from all that is stored, and keep them from being stored again.

    Their row in Marketing Cloud stays: delete the contact there.

    Example: cohort-sync forget - < key.txt
    """
    if listing == (contact_key is not None) or (listing and undo):
        raise typer.BadParameter("give the key, or --list", param_hint="CONTACT_KEY")
    with context.database(proven=True) as db:
        if contact_key is None:
            _list(db, as_json=as_json)
        elif undo:
            _undo(db, read_key(contact_key), as_json=as_json)
        else:
            key = read_key(contact_key)
            confirm.require(_question(flags), doing="Erasing a contact", yes=yes)
            number = _begin(db, key, flags)
            if flags == "false":
                _clear(db, key, time.monotonic() + wait_seconds)
            _erase(db, key, number, as_json=as_json)


def _question(flags: Flags) -> str:
    first = "Their flags are set to false first." if flags == "false" else "Their flags stay as they are."
    return f"Erase this contact from everything that is stored? {first}"


def _list(db: Database, *, as_json: bool) -> None:
    with db.read() as session:
        rows = forgotten.every(session)
    if as_json:
        output.emit([_document(row) for row in rows])
        return
    output.table(
        ["id", "forgotten", "by", "removed"],
        [(str(row.id), row.created_at, row.actor, row.removed_at or "not yet: repeat it") for row in rows],
        empty="Nobody is forgotten.",
    )


def _document(row: ForgottenContact) -> dict[str, Any]:
    return {
        "id": row.id,
        "forgotten_at": output.iso(row.created_at),
        "actor": row.actor,
        "removed_at": output.iso(row.removed_at),
    }


def _undo(db: Database, key: str, *, as_json: bool) -> None:
    with db.write() as session:
        row = forgotten.undo(session, db.keyring, key)
        _record(session, row.id, "undo")
    text = "The contact may be stored again; in a cohort by webhook, when Amplitude tells of them anew."
    output.done(text, {"id": row.id}, as_json=as_json)


def _begin(db: Database, key: str, flags: Flags) -> int:
    """Mark them: from here on nothing of them is stored."""
    with db.write() as session:
        row = forgotten.add(
            session, db.keyring, key, leaving=flags == "false", now=context.now(), actor=context.actor()
        )
        _record(session, row.id, "forget", flags=flags)
        return row.id


def _record(session: Any, number: int, action: str, **facts: Any) -> None:
    by: dict[str, Any] = {"now": context.now(), "actor": context.actor()}
    audit.record(session, action=action, kind="contact", name=f"#{number}", **by, **facts)


# --- their flags ----------------------------------------------------------------------------------------


def _clear(db: Database, key: str, until: float) -> None:
    """A run for each binding that has them, until none has."""
    with db.read() as session:
        bindings = every(session, CohortBinding)
    for binding in bindings:
        for _ in range(TRIES):
            if not _is_in(db, binding, key):
                break
            _ended(db, _run(db, binding), until)
        else:
            raise TransientError("FORGET_UNCLEARED", why=f"runs of {binding.name!r} ended without it")


def _is_in(db: Database, binding: CohortBinding, key: str) -> bool:
    from worker.inspection.trace import trace

    found = trace(db, binding, key)
    return found.member or found.on_its_way is not None


def _run(db: Database, binding: CohortBinding) -> int:
    """One whose target is what is stored, without who is forgotten; or the one that is under way."""
    now = context.now()
    with db.write() as session:
        begun = session.scalar(
            select(SyncRun.id).where(SyncRun.binding_id == binding.id, SyncRun.state.in_(UNFINISHED_WORDS))
        )
        if begun is not None:
            return begun
        mine = session.get_one(CohortBinding, binding.id)
        made = manual.of_state(session, mine, now=now, actor=context.actor(), full=False)
    publish(made)
    return made.id


def _ended(db: Database, run_id: int, until: float) -> None:
    while True:
        with db.read() as session:
            run = decisions.get_run(session, run_id)
        if run.state.finished:
            return
        if run.state == RunState.HELD or time.monotonic() > until:
            code = f" ({run.error_code})" if run.error_code else ""
            raise TransientError("FORGET_UNCLEARED", why=f"run {run_id} is {run.state}{code}")
        time.sleep(LOOK_SECONDS)


# --- what is stored -------------------------------------------------------------------------------------


def _erase(db: Database, key: str, number: int, *, as_json: bool) -> None:
    from worker.inspection.trace import Wanted

    wanted, mine = Wanted(key), comparison_key(key)
    found = erasure.remove(db, erasure.Wanted(wanted.is_in, lambda other: comparison_key(other) == mine))
    _uploads(db, mine, found)
    left = [f"batches of run {run}" for run in sorted(found.pending)]
    left += _files(db)
    kept = erasure.rewrite(db)
    if left:
        raise TransientError("FORGET_PENDING", left=", ".join(left))
    with db.write() as session:
        row = session.get_one(ForgottenContact, number)
        row.removed_at, row.leaving = context.now(), False
        _record(session, number, "erase", **found.places)
    where = ", ".join(f"{name} ({n:,})" for name, n in sorted(found.places.items())) or "nowhere"
    output.done(
        f"The contact is forgotten. They were in: {where}. Their row in Marketing Cloud stays: delete it there.",
        {"id": number, "places": dict(found.places), "may_hold": kept},
        as_json=as_json,
    )
    for place in kept:
        output.note(f"note: may still hold something: {place}.")


def _uploads(db: Database, mine: str, found: erasure.Found) -> None:
    """Uploaded cohort files of runs that have not ended."""
    from worker.membership.without import without

    with db.read() as session:
        uploads = snapshots.uploads(session)
    for upload in uploads:
        with temporary_dir(db.settings.data_dir, "forget") as folder:
            whole, allowed = folder / "whole", folder / "allowed"
            with db.read() as session, whole.open("wb") as file:
                file.writelines(snapshots.iter_upload(session, upload.id))
            try:
                gone = without(
                    whole,
                    allowed,
                    upload.property,
                    lambda other: comparison_key(other) == mine,
                    max_bytes=db.settings.snapshot_max_bytes,
                    workdir=folder,
                )
            except ContractError:  # its run fails for the same reason, and forgets it
                found.pending |= set(_runs_of(db, upload.id))
                continue
            if gone:
                with db.write() as session, allowed.open("rb") as file:
                    snapshots.replace_upload(session, upload.id, file)
                found.places["uploaded files"] += 1


def _runs_of(db: Database, snapshot_id: int) -> Iterator[int]:
    with db.read() as session:
        yield from session.scalars(select(SyncRun.id).where(SyncRun.snapshot_id == snapshot_id))


def _files(db: Database) -> list[str]:
    """Remove the files of runs on this machine; they are made anew without the person. What has to stay, in words."""
    data_dir = db.settings.data_dir
    for file in (data_dir / "snapshots").glob("*"):
        file.unlink(missing_ok=True)
    with db.read() as session:
        at_work = session.scalars(
            select(SyncRun.id).where(SyncRun.state == RunState.RUNNING, SyncRun.lease_until > context.now())
        ).all()
    if at_work:
        return [f"files of run {run}, which is at work" for run in at_work]
    for folder in (data_dir / "work").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    return []
