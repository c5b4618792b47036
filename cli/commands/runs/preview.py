"""`cohort-sync plan`: what a run by hand would do now, shown to a person before it does it. Pushes nothing.

A precondition that fails is said before a download is spent. Contact keys are masked unless they are asked for.
"""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import bars, context, names, output
from cli.commands.runs import plan_report
from cli.commands.runs.rejections import note_keys_shown
from cli.commands.runs.run import note_reuse
from cli.commands.setup import checks
from cli.config_file import vendors
from cli.exit_codes import Code
from models.contact_keys.masking import masked
from models.database import Database
from models.direction import Direction
from models.errors import ConfigurationError, ContractError, SyncError
from models.membership import snapshots
from models.naming import find
from models.observability import overview
from models.tables import CohortBinding, Snapshot
from models.types import Feed, SnapshotKind, WriteMode
from models.wording import plural

if TYPE_CHECKING:
    from worker.context import Context
    from worker.inspection.estimate import Estimate
    from worker.stages.dry_run import DryRun, Findings

app = typer.Typer(add_completion=False)

QUOTA_STEP = "downloads"
# As a run tells them, and beside them who stays, and who was acknowledged before.
COUNTS = (
    *("snapshot_rows", "members", "blank", "duplicate", "entered", "exited"),
    *("unchanged", "state_members", "spared", "odd", "spanned"),
)


@app.command()
def plan(
    binding: Annotated[str, typer.Argument(autocompletion=names.bindings, help="The binding's name or id.")],
    snapshot: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, readable=True, help="Use this cohort file instead of a download."
        ),
    ] = None,
    show_keys: Annotated[
        bool,
        typer.Option(
            "--show-keys",
            help="Show the sampled contact keys in full: personal data, and audited.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Request a download even if the month's quota is used up.")
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask for a new download even if there is one of the last minutes."),
    ] = False,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How long to wait for the vendors, mainly Amplitude's job.")
    ] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What a run would do now: who enters and leaves, what it costs, what would stop it. Pushes nothing.

    Spends one download at most, and none if one can be shared; the next run of the binding uses the same one.
    Exits 4 if a guard would hold a run by hand, 5 if a check fails.

    Example: cohort-sync plan vips
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Code.INTERRUPTED))  # so that its files go with it
    with context.database() as db:
        row, reused = _admitted(db, binding, snapshot, force=force, fresh=fresh)
        if show_keys:
            note_keys_shown(db, row, "plan")
        with vendors.opened(db) as outside:
            found = _Plan(outside, row, snapshot, reused, force=force, patience=wait_seconds)
    document = found.document(keys=show_keys)
    if as_json:
        output.emit(document)
    else:
        plan_report.show(document)
    if found.failed:
        raise typer.Exit(Code.CHECK_FAILED)
    if document["guard"] is not None:
        raise typer.Exit(Code.HELD)


def _admitted(
    db: Database, name: str, file: Path | None, *, force: bool, fresh: bool
) -> tuple[CohortBinding, Snapshot | None]:
    """The binding, refused where a run by hand would be refused at the door, and the download that one would reuse."""
    with db.write() as session:
        row = find(session, CohortBinding, name)
        if fresh:
            snapshots.use_up(session, row)
        if file is not None and row.feed == Feed.WEBHOOK:
            raise ConfigurationError("WEBHOOK_FED", binding=row.name)
        policy, reused = snapshots.FreshnessPolicy.of(db.settings), None
        if not (file or force or fresh):
            reused = snapshots.recent(session, row, now=context.now(), fresh=policy)
        if file is None and not force and reused is None:
            snapshots.require_quota(session, row, now=context.now(), fresh=policy)
    return row, reused


class _Plan:
    """What was found out. Where a check fails that needs no snapshot, nothing else is."""

    def __init__(
        self,
        outside: Context,
        row: CohortBinding,
        file: Path | None,
        reused: Snapshot | None,
        *,
        force: bool,
        patience: float,
    ) -> None:
        from worker.stages.dry_run import DryRun, waits_until

        self.row, self.file, self.now = row, file, context.now()
        (steps,) = checks.steps_of(outside, [row])
        # The door has looked at the quota already: what can be shared costs nothing.
        self.failed = [step for step in steps if step.status == "fail" and step.name != QUOTA_STEP]
        self.rehearsal: DryRun = DryRun.of(outside, row, force=force, patience=patience)
        if reused is not None:
            self.rehearsal.draft.snapshot_id = reused.id
            note_reuse(reused, self.now)
        self.found: Findings | None = None
        self.estimate: Estimate | None = None
        self.in_the_way: list[SyncError] = list(waits_until(row, self.now))
        if not self.failed:
            self._find(outside.db)

    def _find(self, db: Database) -> None:
        from worker.inspection.check_extension import failed
        from worker.inspection.estimate import estimate

        if self.file is None and self.row.feed == Feed.DOWNLOAD:
            output.note("waiting for the cohort; Ctrl-C loses nothing: a download that was asked for is kept")
        if self.row.full_next:
            output.note(
                "note: the next run is a full one; what differs in the data extension is not known here"
            )
        try:
            with bars.shown("finding out what a run would do") if sys.stderr.isatty() else nullcontext():
                self.found = self.rehearsal.find(self.file)
        except ContractError as error:
            if self.file is None:
                raise
            raise ConfigurationError(error.code, error.detail, **error.context) from None
        if self.found.failed is not None:
            self.failed = [failed("data extension", self.found.failed)]
        with db.read() as session:
            paces = overview.paces(session, self.row.id)
            self.quota = snapshots.quota(session, self.row.project, now=self.now)
            unfinished = overview.unfinished_of(session, self.row.id)
        self.estimate = estimate(self.found.requests, paces, self.row.destination.write_mode)
        if unfinished is not None:
            facts = {"binding": self.row.name, "run": unfinished.id, "state": unfinished.state}
            detail = "What it has not had acknowledged yet counts here as well."
            self.in_the_way.insert(0, ConfigurationError("RUN_UNFINISHED", detail, **facts))

    def document(self, *, keys: bool) -> dict[str, Any]:
        """All of it, as programs read it."""
        found, cost = self.found, self.estimate
        scheduled = self.row.cron is not None
        return {
            "binding": self.row.name,
            "snapshot": self._snapshot(),
            "counts": {name: getattr(found.counts, name) for name in COUNTS} if found else None,
            "samples": _samples(found, keys=keys) if found else None,
            "odd_examples": (found.odd_examples or None) if found else None,
            "upserts": cost.upserts if cost else None,
            "seconds": list(cost.seconds) if cost and cost.seconds else None,
            "seconds_from": _source(cost, self.row.destination.write_mode) if cost else None,
            "checks": [checks.document(step) for step in self.failed],
            "guard": _error(found.held) if found else None,
            "guard_on_schedule": _error(found.held_on_schedule) if found and scheduled else None,
            "in_the_way": [_error(error) for error in self.in_the_way],
        }

    def _snapshot(self) -> dict[str, Any] | None:
        if self.found is None:
            return None
        spent, allowed = self.quota
        mine = self.rehearsal.draft.snapshot
        return {
            "id": mine.id if mine else None,
            "kind": mine.kind if mine else SnapshotKind.UPLOAD,
            "requested_at": output.iso(mine.requested_at) if mine else None,
            "usable_until": output.iso(self._usable_until()),
            "downloads_spent": self.rehearsal.downloads,
            "month": {"spent": spent, "quota": allowed},
        }

    def _usable_until(self) -> datetime | None:
        """Until when a run of the binding asks for no other download."""
        mine = self.rehearsal.draft.snapshot
        if mine is None or mine.kind != SnapshotKind.DOWNLOAD or mine.completed_at is None:
            return None
        return mine.completed_at + timedelta(seconds=context.settings().snapshot_fresh_seconds)


def _samples(found: Findings, *, keys: bool) -> dict[str, Any]:
    def shown(direction: Direction) -> list[str]:
        return [key if keys else masked(key) for key in found.samples[direction]]

    return {"masked": not keys, "entered": shown(Direction.ENTER), "exited": shown(Direction.EXIT)}


def _error(error: SyncError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "remedy": error.remedy}


def _source(cost: Estimate, mode: str) -> str:
    """What the range of seconds rests on."""
    if not cost.upserts:
        return "there is nothing to push"
    turns = "one after the other" if mode == WriteMode.SYNC else "two at a time"
    if cost.measured:
        return f"as the binding's last {plural(cost.measured, 'batch', 'batches')} of about this size took, {turns}"
    if cost.seconds is None:
        return "the binding has pushed nothing like it yet"
    return f"a first guess: a job takes 0.5 to 20 s elsewhere, minutes on a bad day; {turns}"
