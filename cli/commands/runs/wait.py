"""Following a run to its end: a line that changes on a terminal, a line for each change elsewhere.

Progress goes to stderr, so that stdout holds nothing but the result. The database is asked, not the queue:
the run row is the truth.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import typer

from cli import bars, context, output, views
from cli.commands.runs.report import report
from cli.exit_codes import OF_STATE
from models import broker
from models.database import Database
from models.errors import TransientError
from models.observability import overview
from models.runs import batches, decisions, stage_progress
from models.tables import SyncRun
from models.types import BatchState, RunState, Stage
from models.wording import plural

LOOK_SECONDS = 0.2
UNCLAIMED_SECONDS = 15.0
DATABASE_AWAY_SECONDS = 60.0
ALIVE_SECONDS = 5.0  # how often somebody's sign of life is looked for
STOPPED_SECONDS = 60.0
_SETTLED = (BatchState.ACKNOWLEDGED, BatchState.LOST, BatchState.DROPPED, BatchState.SUPERSEDED)


@dataclass(frozen=True)
class Progress:
    """Where a run stands, in the words that are shown."""

    state: str
    stage: str
    doing: str
    rows: tuple[int, int] = (0, 0)  # done, and how many there are; no bar without
    unit: str = "rows"
    short: str = ""  # the same beside a bar that has the rows

    def __str__(self) -> str:
        return f"{self.stage}: {self.doing}" if self.state in {"running", "waiting"} else self.doing


def follow(db: Database, run_id: int, *, as_json: bool) -> NoReturn:
    """Watch the run until it has ended or is held, print it, and exit with its code."""
    try:
        row = until_end(db, run_id)
    except KeyboardInterrupt:
        output.note(f"Run {run_id} continues. Follow it again: `cohort-sync watch {run_id}`.")
        raise
    if as_json:
        output.emit(views.run(row))
    else:
        with db.read() as session:
            reasons = overview.rejections(session, row.id)
        report(row, context.now(), reasons)
    raise typer.Exit(OF_STATE[row.state])


def until_end(db: Database, run_id: int) -> SyncRun:
    """Watch the run until it has ended or is held."""
    return _on_terminal(db, run_id) if sys.stderr.isatty() else _in_lines(db, run_id)


def _in_lines(db: Database, run_id: int) -> SyncRun:
    shown = None
    watch = _Poller(db, run_id)
    while True:
        row, progress = watch.look()
        if str(progress) != shown:
            output.note(f"run {run_id} {progress}")
            shown = str(progress)
        if row.state in OF_STATE:
            return row
        time.sleep(LOOK_SECONDS)


def _on_terminal(db: Database, run_id: int) -> SyncRun:
    watch = _Poller(db, run_id)
    with bars.shown(f"run {run_id}") as bar:
        while True:
            row, progress = watch.look()
            bar.tell(f"run {run_id} {progress.short or progress}", *progress.rows, progress.unit)
            if row.state in OF_STATE:
                return row
            time.sleep(LOOK_SECONDS)


class _Poller:
    """One run, looked at again and again; a database that is away for a while is waited for."""

    def __init__(self, db: Database, run_id: int) -> None:
        self._db = db
        self._run_id = run_id
        self._since = time.monotonic()
        self._seen = time.monotonic()
        self._warned = False
        self._moved = self._asked = time.monotonic()
        self._before: object = None
        self._queue = broker.redis_client(context.settings().redis, seconds=1.0)

    def look(self) -> tuple[SyncRun, Progress]:
        """The run as it stands, and that in words."""
        while True:
            try:
                with self._db.read() as session:
                    row = decisions.get_run(session, self._run_id)
                    counts = batches.count_by_state(session, self._run_id)
            except TransientError:
                if time.monotonic() - self._seen > DATABASE_AWAY_SECONDS:
                    raise
                time.sleep(LOOK_SECONDS)
                continue
            self._seen = time.monotonic()
            self._warn_if_unclaimed(row)
            self._leave_if_stopped(row)
            return row, self._within(row) or _progress(row, counts, context.now())

    def _within(self, row: SyncRun) -> Progress | None:
        """How far the worker is within the stage, where it says so: a download and a reading take long."""
        if row.state != RunState.RUNNING or row.stage != Stage.DIFF:
            return None
        found = stage_progress.heard(self._queue, row.id, row.fence)
        if found is None:
            return None
        rows = (found.done, found.total)
        return Progress(row.state, row.stage, found.doing, rows, found.unit, f"{row.stage}: {found.doing}")

    def _warn_if_unclaimed(self, row: SyncRun) -> None:
        late = time.monotonic() - self._since > UNCLAIMED_SECONDS
        if late and not self._warned and row.state == RunState.QUEUED and row.started_at is None:
            self._warned = True
            output.note(
                "warning: nobody has taken the run yet, so no worker seems to be running: `cohort-sync up`. "
                "Ctrl-C stops the waiting, not the run."
            )

    def _leave_if_stopped(self, row: SyncRun) -> None:
        """STACK_STOPPED where nobody is left to carry the run on: it would be waited for without an end."""
        now, stands = time.monotonic(), (row.state, row.stage, row.fence, row.lease_until, row.acknowledged)
        if row.state in OF_STATE or stands != self._before:
            self._before, self._moved = stands, now
        elif now - self._asked > ALIVE_SECONDS:
            self._asked = now
            held = row.lease_until is not None and row.lease_until > context.now()
            if held or context.schedulers():
                self._moved = now
            elif now - self._moved > STOPPED_SECONDS:
                raise TransientError("STACK_STOPPED", run=row.id, seconds=round(now - self._moved))


def _progress(row: SyncRun, counts: dict[str, int], now: datetime) -> Progress:
    doing: str = row.state
    if row.state == RunState.WAITING:
        doing = _waiting(row, now)
    elif row.state == RunState.RUNNING:
        doing = _running(row)
    if counts and row.stage == Stage.PUSH and row.state in {RunState.RUNNING, RunState.WAITING}:
        settled = sum(n for state, n in counts.items() if state in _SETTLED)
        batches_done = f"{settled} of {plural(sum(counts.values()), 'batch', 'batches')}"
        doing = f"{batches_done}, {plural(row.acknowledged, 'row')} acknowledged; {doing}"
        rows = row.acknowledged, row.entered + row.exited
        return Progress(row.state, row.stage, doing, rows, short=f"{row.stage}: {batches_done}")
    return Progress(row.state, row.stage, doing)


def _running(row: SyncRun) -> str:
    if row.stage in {Stage.PUSH, Stage.FINISH}:
        return f"{row.entered:,} entered, {row.exited:,} exited"
    return "running"


def _waiting(row: SyncRun, now: datetime) -> str:
    if row.error_code:
        again = f", again at {row.wake_at:%H:%M:%S} UTC" if row.wake_at and row.wake_at > now else ""
        return f"waiting: {row.error_code}: {row.error_message}{again}"
    if row.slot_wanted is not None:
        return "waiting for one of the data extension's two slots"
    return "waiting for the vendor"
