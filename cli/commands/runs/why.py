"""`cohort-sync why`: whether one person is in, since which run, and what was refused of them.

The key that was typed is neither shown nor logged: who asked knows it, and a screen or a log need not.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import context, names, output
from models.data_protection import forgotten
from models.data_protection.retention import Retention
from models.direction import Direction
from models.membership.contact_history import ContactPush
from models.naming import find
from models.tables import CohortBinding, Rejection
from models.types import BatchState

if TYPE_CHECKING:
    from worker.inspection.trace import Trace

app = typer.Typer(add_completion=False)

STDIN = "-"
_WAY = {Direction.ENTER: "in", Direction.EXIT: "out"}


@app.command()
def why(
    binding: Annotated[str, typer.Argument(autocompletion=names.bindings, help="The binding's name or id.")],
    contact_key: Annotated[
        str,
        typer.Argument(
            help="The person's contact key; - reads it from standard input, which keeps it out of the shell's history."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Is this person in: since which run, when pushed, when acknowledged, why rejected.

    Keys are compared as Marketing Cloud compares them: without case and trailing spaces.

    Example: cohort-sync why vips ann@example.com
    """
    from worker.inspection.trace import trace

    key = read_key(contact_key)
    with context.database() as db:
        with db.read() as session:
            row = find(session, CohortBinding, binding)
            erased = forgotten.find(session, db.keyring, key) is not None
        found = trace(db, row, key)
    kept = Retention.at(context.settings(), context.now()).batches
    since = kept if kept is not None and row.created_at < kept else None
    if as_json:
        limits = {"known_since": output.iso(since), "forgotten": erased}
        output.emit(_document(row, found) | limits)
        return
    _print(row, found, context.now(), limited=since is not None)
    if erased:
        output.say("forgotten: nothing of this person is stored any more (`cohort-sync forget --list`)")
    if since is not None:
        output.say(f"What was pushed before {output.text(since)} is not kept, so nothing is known of it.")


def read_key(given: str) -> str:
    """The key, refused if it can be nobody's."""
    from models.contact_keys.comparison import is_blank

    if given == STDIN:
        try:
            given = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise _bad("it is not UTF-8") from None
        given = given.removesuffix("\n").removesuffix("\r")
    if is_blank(given):
        raise _bad("it is blank")
    if any("\ud800" <= char <= "\udfff" for char in given):  # how Python shows an argument that is no UTF-8
        raise _bad("it is not UTF-8")
    return given


def _bad(reason: str) -> typer.BadParameter:
    return typer.BadParameter(f"This can be nobody's contact key: {reason}.", param_hint="CONTACT_KEY")


def _document(row: CohortBinding, found: Trace) -> dict[str, Any]:
    return {
        "binding": row.name,
        "member": found.member,
        "since": _push(found.since) if found.since else None,
        "history": [_push(push) for push in found.history],
        "on_its_way": _push(found.on_its_way) if found.on_its_way else None,
        "rejection": _rejection(found.rejection) if found.rejection else None,
    }


def _push(push: ContactPush) -> dict[str, Any]:
    return {
        "run": push.run_id,
        "direction": push.direction,
        "state": push.state,
        "pushed_at": output.iso(push.pushed_at),
        "acknowledged_at": output.iso(push.acknowledged_at),
    }


def _rejection(refused: Rejection) -> dict[str, Any]:
    return {
        "run": refused.run_id,
        "direction": refused.direction,
        "code": refused.code,
        "message": refused.message,
        "first_seen": output.iso(refused.first_seen),
        "last_seen": output.iso(refused.last_seen),
        "count": refused.count,
    }


def _print(row: CohortBinding, found: Trace, now: datetime, *, limited: bool) -> None:
    output.say(f"{row.name}: {_verdict(found, limited=limited)}")
    for push in found.history:
        output.say(_told(push, now))
    if found.on_its_way is not None:
        output.say(_under_way(found.on_its_way, now))
    if found.rejection is not None:
        output.say(_refusal(found.rejection, now))


def _verdict(found: Trace, *, limited: bool) -> str:
    if found.since is not None:
        return f"in, since run {found.since.run_id}"
    if found.member:
        return "in, since before the first run whose batches are kept"
    if found.history:
        return f"not in: out since run {found.history[-1].run_id}"
    return "not in, and no row of it was ever acknowledged" + (" that is known of" if limited else "")


def _told(push: ContactPush, now: datetime) -> str:
    known = output.when(push.acknowledged_at, now)
    if push.pushed_at is None:  # a full run's: models.runs.batches.adopt
        return f"run {push.run_id} read it back as {_WAY[push.direction]}, {known}"
    pushed = f"pushed it {_WAY[push.direction]} at {output.text(push.pushed_at)}"
    return f"run {push.run_id} {pushed}, acknowledged {known}"


def _under_way(push: ContactPush, now: datetime) -> str:
    way = _WAY[push.direction]
    if push.state == BatchState.LOST:
        return f"run {push.run_id} pushed it {way} and never heard the end: the next run pushes it anew"
    if push.pushed_at is None:
        return f"on its way {way}: run {push.run_id} has planned it and not sent it yet"
    pushed = output.when(push.pushed_at, now)
    return f"on its way {way}: run {push.run_id} pushed it {pushed}, not acknowledged"


def _refusal(refused: Rejection, now: datetime) -> str:
    times = (
        f"{refused.count} times since {output.text(refused.first_seen)}, last" if refused.count > 1 else ""
    )
    way = _WAY[refused.direction]
    return (
        f"refused on its way {way} by run {refused.run_id}, {times} {output.when(refused.last_seen, now)}: "
        f"{refused.code}: {refused.message}. The next run tries it again."
    ).replace(",  ", ", ")
