"""A webhook-fed cohort as a snapshot file, so that everything after it is the same as for a download.

The list is merged once, block by block (`compaction.compact`); where it has grown long, what was merged becomes
its new base. Nothing is locked while merging, because the receiver has a second to answer: only the swap is a
transaction.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from models.membership import cohort_lists
from models.membership.cohort_lists import ListView
from models.secrets import make_private_dir
from models.tables import Snapshot
from worker.claim import ClaimedRun
from worker.inspection import members_file
from worker.membership.compaction import compact, compaction_due

log = structlog.get_logger()


def write(hold: ClaimedRun, snapshot: Snapshot, path: Path) -> None:
    """The snapshot's members to `path`, one key a row; users without the mapped property are empty rows."""
    work = hold.ctx.settings.data_dir / "work"
    make_private_dir(work)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    with tempfile.TemporaryDirectory(prefix=f"list-{snapshot.id}-", dir=work) as directory:
        workdir = Path(directory)
        try:
            with hold.ctx.db.read() as session:
                view = cohort_lists.look(session, snapshot)
                parts = compact(
                    cohort_lists.iter_parts(session, view),
                    cohort_lists.iter_messages(session, view),
                    workdir=workdir,
                )
                due = view.alone and compaction_due(view.members, view.changes, view.replayed)
                kept: list[tuple[int, Path]] = []
                blobs = _keeping(parts, kept, workdir) if due else (blob for _, blob in parts)
                members_file.write(draft, snapshot.property, blobs, view.blank)
            if due:
                _fold(hold, view, kept)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _keeping(
    parts: Iterable[tuple[int, bytes]], kept: list[tuple[int, Path]], workdir: Path
) -> Iterator[bytes]:
    """The parts as they come, laid down in files on the way: there may be more of them than fit memory."""
    for n, blob in parts:
        file = workdir / f"part-{len(kept)}"
        file.write_bytes(blob)
        kept.append((n, file))
        yield blob


def _fold(hold: ClaimedRun, view: ListView, kept: list[tuple[int, Path]]) -> None:
    with hold.transaction() as (session, _):
        folded = cohort_lists.fold(session, view, ((n, file.read_bytes()) for n, file in kept))
    with hold.transaction() as (session, _):
        forgotten = cohort_lists.forget_old(session, view.list_id, now=hold.now)
    log.info("cohort_list_folded", folded=folded, messages=len(view.unfolded), forgotten=forgotten)
