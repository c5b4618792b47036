"""A download as the base of a webhook's list: what was told before goes, what is told later is applied on top.

The file has to pass the guards of a file first: a damaged one would be believed from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from models.direction import Direction
from models.errors import TerminalError
from models.membership import cohort_lists, generations, list_base
from models.membership.generations import Ahead
from models.tables import Snapshot, SyncRun
from worker.claim import ClaimedRun
from worker.membership.compaction import compact
from worker.membership.diff import StateReader, compare
from worker.membership.file_keys import key_blobs
from worker.membership.part_file import PartFile
from worker.membership.snapshot_file import inspect
from worker.stages import parts_ahead, snapshot_store
from worker.stages.guards import file_guard, webhook_trust

log = structlog.get_logger()


def take(claimed: ClaimedRun, run: SyncRun, known: StateReader) -> None:
    """Make the run's download the base of its list, and the list the run's snapshot."""
    download = run.snapshot
    if download is None:
        raise TerminalError("SNAPSHOT_REQUEST_LOST")
    settings = claimed.ctx.settings
    cohort = snapshot_store.csv_of(claimed, download)
    with claimed.workdir(f"base-{run.id}") as workdir:
        found = compare(cohort, known, workdir=workdir, seed=claimed.ctx.rng.getrandbits(63))
        counts = found.counts
        if not run.approved:
            held = file_guard.objection(run.binding, counts, odd_percent=settings.odd_key_percent, run=run.id)
            if held is not None:
                raise held
        file = inspect(cohort.path, cohort.column, max_bytes=cohort.max_bytes, workdir=workdir)
        parts = compact((), ((Direction.ENTER, keys) for keys in key_blobs(file)), workdir=workdir)
        base = PartFile.of(parts, workdir)
        webhook_trust.ask(
            claimed, run.binding, anew=True
        )  # after a sync that failed no next one can be added to it
        _swap(claimed, download, base, counts.blank, workdir)


def _swap(claimed: ClaimedRun, download: Snapshot, base: PartFile, blank: int, workdir: Path) -> None:
    def count(session: Session, run: SyncRun, ahead: Ahead, rest: Iterator[tuple[int, bytes]]) -> int | None:
        stored = session.get_one(Snapshot, download.id)
        # Who was forgotten is still one of the cohort's people, as somebody without the property.
        stored.rows = base.rows + blank
        return list_base.rebase(session, run, stored, ahead, rest, people=stored.rows, now=claimed.now)

    with claimed.transaction() as (session, run):
        list_id = list_base.list_to_base(session, run.binding, now=claimed.now)
    cohort_lists.drop_replaced(claimed, list_id, claimed.claim.run_id)
    parts_ahead.counted(
        claimed,
        generations.of_list(list_id),
        base,
        Direction.ENTER,
        count,
        known=None,
        workdir=workdir,
    )
    cohort_lists.drop_replaced(claimed, list_id, claimed.claim.run_id)
    log.info("list_reconciled", snapshot=download.id, members=base.rows)
