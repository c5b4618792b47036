"""A full run's other side: what Marketing Cloud really holds, in the place of what it has acknowledged.

Two rules, so that a reading can add to what is known and never take from it:

* A member who is not flagged there is uncertain, not forgotten: pushed whichever way the snapshot says.
* A flag that nobody knew of becomes state together with the plan (`batches.adopt`): the run, or if it fails the next
  one, removes it like any member's.

So entered = target - flagged there, exited = (flagged there + state) - target, and afterwards the state is the target.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from models.direction import Direction
from models.errors import Cancelled, SyncError, TerminalError
from models.private_files import make_private_dir
from models.runs.stage_progress import StageProgress
from models.tables import SyncRun
from worker.claim import ClaimedRun
from worker.inspection.check import require_destination
from worker.inspection.comparison import Comparison, as_state, audit
from worker.inspection.readback import Readback
from worker.membership.diff import StateReader

log = structlog.get_logger()

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class FullRun:
    """The audit of a reading, and the reading as the state to diff a snapshot against."""

    audit: Comparison
    state: StateReader

    def unknown(self) -> Iterator[tuple[int, bytes]]:
        """(rows, keys) that are flagged there and that nobody knew of."""
        return self.audit.blobs(Direction.EXIT)


def read(claimed: ClaimedRun, run: SyncRun, known: StateReader, workdir: Path) -> FullRun:
    """Read the data extension to its end, on from where an earlier attempt on this machine stood."""
    folder = workdir.parent / f"read-{run.id}-{run.created_at:%Y%m%d%H%M%S}"  # no other database's run
    make_private_dir(folder)
    with claimed.marketing_cloud(run.binding.destination) as cloud:
        extension, field = require_destination(cloud, run.binding)
        reading = Readback(folder, extension, field, claimed.forgotten())
        begun = reading.pages
        try:
            reading.go_on(cloud, _watched(claimed))
        except (TerminalError, Cancelled):
            shutil.rmtree(folder)  # nobody will go on with it
            raise
        except SyncError:
            if reading.pages > begun and not reading.in_vain:  # or it could go on for ever
                with claimed.transaction() as (_, mine):
                    mine.attempt = 0  # the vendor answers
            raise
    found = audit(claimed.ctx.db, run.binding, reading, workdir=workdir, seed=claimed.ctx.rng.getrandbits(63))
    reading.move(workdir / "rows")
    log.info("read_back", rows=reading.rows, present=found.present, missing=found.missing, extra=found.extra)
    state = as_state(reading)

    def uncertain() -> Iterator[bytes]:
        yield from known.uncertain()
        for _, keys in found.blobs(Direction.ENTER):
            yield keys

    return FullRun(found, replace(state, uncertain=uncertain))


def _watched(claimed: ClaimedRun) -> Callable[[int, int], None]:
    """Looks now and then whether the run is still wanted, and still ours; and says how far the reading is."""
    looked = time.monotonic()

    def told(rows: int, count: int) -> None:
        nonlocal looked
        if time.monotonic() - looked < _LOOK_SECONDS:
            return
        claimed.require_lease()
        run = claimed.load()
        if run.cancel_requested:
            raise Cancelled("CANCELLED", binding=run.binding.name)
        claimed.tell(StageProgress("reading the data extension", rows, count))
        looked = time.monotonic()

    return told
