"""A webhook-fed cohort as a snapshot file, so that everything after it is the same as for a download.

The list is merged once, block by block (`compaction.compact`); where it has grown long, what was merged becomes
its new base. Nothing is locked while merging, because the receiver has a second to answer: only the swap is a
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy.orm import Session

from models.data_protection.forgotten import Forgotten
from models.direction import Direction
from models.membership import cohort_lists, generations
from models.membership.cohort_lists import ListView
from models.membership.generations import Ahead, Counting
from models.private_files import replacing
from models.tables import Snapshot, SyncRun
from worker.claim import ClaimedRun
from worker.membership.compaction import compact, compaction_due
from worker.membership.key_sources import write_blobs
from worker.membership.part_file import PartFile
from worker.stages import parts_ahead

log = structlog.get_logger()


def write(claimed: ClaimedRun, snapshot: Snapshot, path: Path, gone: Forgotten) -> None:
    """The snapshot's members to `path` as blobs, without who is `gone`; users without the mapped property are blank."""
    with claimed.workdir(f"list-{snapshot.id}") as workdir:
        with claimed.ctx.db.read() as session:
            view = cohort_lists.look(session, snapshot)
            parts = compact(
                cohort_lists.iter_parts(session, view),
                cohort_lists.iter_messages(session, view),
                workdir=workdir,
            )
            due = view.alone and compaction_due(view.members, view.changes, view.replayed)
            kept = PartFile(workdir)
            if due:
                parts = _keeping(parts, kept)
            allowed = (gone.without(Direction.ENTER, n, blob)[1] for n, blob in parts)
            with replacing(path) as draft:
                write_blobs(draft, allowed, view.blank)
        if due:
            _fold(claimed, view, kept, workdir)


def sweep(claimed: ClaimedRun, run: SyncRun) -> None:
    """Remove parts of the run's list that do not count, if a kill has left any."""
    with claimed.ctx.db.read() as session:
        found = cohort_lists.of_binding(session, run.binding)
        if found is None or not generations.any_others(session, generations.of_list(found.id)):
            return
    cohort_lists.drop_replaced(claimed, found.id, run.id)


def _keeping(parts: Iterable[tuple[int, bytes]], kept: PartFile) -> Iterator[tuple[int, bytes]]:
    """The parts as they come, `kept` on the way."""
    for n, blob in parts:
        kept.add(n, blob)
        yield n, blob


def _fold(claimed: ClaimedRun, view: ListView, kept: PartFile, workdir: Path) -> None:
    def count(
        session: Session, _: SyncRun, ahead: Ahead, rest: Iterator[tuple[int, bytes]]
    ) -> Counting | Literal[False] | None:
        return cohort_lists.fold(session, view, ahead, rest)

    counting: Counting | Literal[False] = parts_ahead.counted(
        claimed,
        generations.of_list(view.list_id),
        kept,
        Direction.ENTER,
        count,
        known=None,
        workdir=workdir,
    )
    if counting:
        cohort_lists.fold_messages(claimed, view, counting.generation)
    with claimed.transaction() as (session, _):
        forgotten = cohort_lists.forget_old(session, view.list_id, now=claimed.now)
    cohort_lists.drop_replaced(claimed, view.list_id, claimed.claim.run_id)
    log.info("cohort_list_folded", folded=bool(counting), messages=len(view.unfolded), forgotten=forgotten)
