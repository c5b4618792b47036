"""`cohort-sync verify`: what Marketing Cloud really holds against what is stored, read back over its API.

A person waits for it, so it sleeps through what a run would leave its slot for. No key is shown unless asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli import bars, confirm, context, names, output, views
from cli.commands.runs import wait
from cli.commands.runs.rejections import note_keys_shown
from cli.commands.runs.run import publish
from cli.config_file import vendors
from cli.exit_codes import OF_STATE, Code
from models.data_protection import forgotten
from models.database import Database
from models.errors import RateLimited, TransientError
from models.naming import find
from models.private_files import temporary_dir
from models.runs import manual, quiescence
from models.tables import CohortBinding, SyncRun
from models.types import RunState
from models.wording import plural

if TYPE_CHECKING:
    from worker.context import Context
    from worker.inspection.comparison import Comparison

app = typer.Typer(add_completion=False)

SHOWN = 20
Told = Callable[[int, int], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Looked:
    """An audit, and what it took."""

    audit: Comparison
    rows: int
    requests: int


@app.command()
def verify(
    binding: Annotated[str, typer.Argument(autocompletion=names.bindings, help="The binding's name or id.")],
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Compare even while a run is active; its changes then count as differences."
        ),
    ] = False,
    show_keys: Annotated[
        bool,
        typer.Option(
            "--show-keys",
            help=f"Show up to {SHOWN} contact keys of each kind: personal data, and audited.",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="If they differ, make the data extension match the stored state, by a full run without a download.",
        ),
    ] = False,
    yes: confirm.Yes = False,
    waited: Annotated[
        bool, typer.Option("--wait", help="With --repair: wait for the run, then compare again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read the data extension back and compare it with the members that are stored; changes nothing by itself.

    Missing: stored, and not flagged there. Extra: flagged there, and not stored. Exits 5 if there are any, and
    with the run's code if a run that was waited for did not succeed.

    Example: cohort-sync verify vips --repair --wait --yes
    """
    if waited and not repair:
        raise typer.BadParameter("only --repair makes a run to wait for", param_hint="--wait")
    with context.database() as db:
        with db.read() as session:
            row = find(session, CohortBinding, binding)
        if repair:
            confirm.require_answerable(doing=_doing(row), yes=yes)
        if show_keys:
            note_keys_shown(db, row, "verify")
        looked = look(db, row, anyway=anyway)
        run = None
        if repair and not looked.audit.equal:
            _confirm(row, looked, yes=yes)
            run = _repair(db, row, waited=waited)
        if run is not None and run.state in {RunState.SUCCEEDED, RunState.PARTIAL}:
            looked = look(db, row, anyway=anyway)
    _show(row, looked, run, keys=show_keys, as_json=as_json)
    code = OF_STATE.get(run.state, Code.DONE) if run is not None else Code.DONE
    if code or not looked.audit.equal:
        raise typer.Exit(code or Code.CHECK_FAILED)


def look(db: Database, binding: CohortBinding, *, anyway: bool = False) -> Looked:
    """The audit of a binding whose state stood still meanwhile."""
    with db.read() as session:
        if not anyway:
            quiescence.require_still(session, binding)
        before = quiescence.mark(session, binding)
    with (
        vendors.opened(db) as outside,
        temporary_dir(db.settings.data_dir, "verify") as folder,
        _progress() as told,
    ):
        looked = _read(outside, binding, folder, told)
    with db.read() as session:
        if not anyway and quiescence.mark(session, binding) != before:
            raise TransientError("VERIFY_DISTURBED", binding=binding.name)
        if quiescence.anything_open(session, binding):
            output.note(
                "note: the end of an earlier push is unknown; the next run settles it, or pushes anew."
            )
    return looked


def _doing(binding: CohortBinding) -> str:
    return f"Overwriting {binding.attribute!r} in Marketing Cloud with what is stored of {binding.name!r}"


def _confirm(binding: CohortBinding, looked: Looked, *, yes: bool) -> None:
    found = looked.audit
    confirm.require(
        f"Flag {plural(found.missing, 'contact')} and unflag {found.extra:,} in {binding.attribute!r}?",
        doing=_doing(binding),
        yes=yes,
    )


def _repair(db: Database, binding: CohortBinding, *, waited: bool) -> SyncRun:
    """A full run whose target is what is stored: queued, or at its end."""
    now = context.now()
    with db.write() as session:
        mine = session.get_one(CohortBinding, binding.id)
        made = manual.of_state(session, mine, now=now, actor=context.actor(), full=True)
    publish(made)
    return wait.until_end(db, made.id) if waited else made


def _read(outside: Context, binding: CohortBinding, folder: Path, told: Told) -> Looked:
    from worker.inspection.check import require_destination
    from worker.inspection.comparison import audit
    from worker.inspection.readback import Readback
    from worker.vendors.marketing_cloud.client import MarketingCloud

    with closing(MarketingCloud(outside, binding.destination)) as cloud:
        extension, field = _patiently(outside, lambda: require_destination(cloud, binding), lambda: 0)
        with outside.db.read() as session:
            gone = forgotten.load(session, outside.db.keyring)
        reading = Readback(folder, extension, field, gone)

        def once() -> Comparison:
            reading.go_on(cloud, told)
            return audit(outside.db, binding, reading, workdir=folder, seed=outside.rng.getrandbits(63))

        found = _patiently(outside, once, lambda: reading.pages)
        return Looked(found, reading.rows, cloud.take_count())


def _patiently(outside: Context, step: Callable[[], Result], reached: Callable[[], int]) -> Result:
    """The step's result, tried again as a run would be: what `reached` more than before gives attempts back."""
    from worker.vendors.backoff import retry_delay

    settings, attempt, furthest = outside.settings, 0, 0
    while True:
        try:
            return step()
        except (RateLimited, TransientError) as error:
            attempt = 0 if reached() > furthest else attempt
            furthest = max(furthest, reached())
            if isinstance(error, RateLimited):
                pause = error.retry_after
            else:
                attempt += 1
                if attempt >= settings.max_attempts:
                    raise
                pause = retry_delay(
                    attempt, settings.retry_base_seconds, settings.retry_max_seconds, outside.rng
                )
            output.note(f"{error.code}: {error.message} Again in {pause:.0f} s.")
        time.sleep(pause)


@contextmanager
def _progress() -> Iterator[Told]:
    """Something to call with (rows read, rows there): a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    with bars.shown("asking for the data extension") as bar:
        yield lambda rows, count: bar.tell("reading the data extension", rows, count)


def _show(binding: CohortBinding, looked: Looked, run: SyncRun | None, *, keys: bool, as_json: bool) -> None:
    found = looked.audit
    document: dict[str, object] = {
        "binding": binding.name,
        "expected": found.expected,
        "present": found.present,
        "missing": found.missing,
        "extra": found.extra,
        "equal": found.equal,
    }
    samples = dict(zip(("missing_keys", "extra_keys"), found.sample(SHOWN), strict=True)) if keys else {}
    output.note(f"{plural(looked.rows, 'row')} read in {plural(looked.requests, 'call')} to Marketing Cloud")
    if as_json:
        output.emit(document | samples | ({"run": views.run(run)} if run is not None else {}))
        return
    output.facts([*document.items(), *((name, ", ".join(some)) for name, some in samples.items())])
    if not found.equal:
        output.say(f"{binding.attribute!r} differs from what is stored.")
    if run is not None:
        output.say(f"Run {run.id}, which repairs it, is {run.state}: `cohort-sync show {run.id}`.")
