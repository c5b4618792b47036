"""The end of a diff: what was found as batches, journalled in one transaction.

The batches are made before it, because everybody else who writes to SQLite waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from models.contact_keys.codec import row_overhead
from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.direction import Direction
from models.runs import batches, lifecycle, rejections
from models.runs.rejections import RejectedRow
from models.setup import destinations
from models.types import Stage, WriteMode
from worker.claim import ClaimedRun
from worker.inspection.check import flag_value
from worker.membership.diff import Diff, PlannedBatch
from worker.membership.part_file import PartFile
from worker.stages import long_keys
from worker.vendors.marketing_cloud.client import (
    BATCH_BYTES,
    BATCH_ROWS,
    CONTACT_KEY,
    SYNC_ROWS,
    DataExtension,
    Field,
)


def planned(found: Diff, field: Field, mode: WriteMode) -> Iterator[PlannedBatch]:
    """The requests that bring what was found into the field: of the size that the write mode takes."""
    overhead = max(
        row_overhead(CONTACT_KEY, field.name, flag_value(field.type, entering=e)) for e in (True, False)
    )
    rows = BATCH_ROWS if mode == WriteMode.ASYNC else SYNC_ROWS
    return found.batches(row_overhead=overhead, max_rows=rows, max_bytes=BATCH_BYTES)


@dataclass
class Draft:
    """Batches without who was forgotten while they were found, and without keys that are too long."""

    known: Forgotten
    parts: PartFile
    unknown: PartFile  # flagged, and nobody knew of it
    kinds: list[tuple[Direction, bool]] = field(default_factory=list)  # of each part; the second: `unsure`
    left_out: Counter[Direction] = field(default_factory=Counter)
    refused: list[RejectedRow] = field(default_factory=list)  # who enters with a key that is too long

    def __iter__(self) -> Iterator[PlannedBatch]:
        for (direction, unsure), (n, keys) in zip(self.kinds, self.parts, strict=True):
            yield PlannedBatch(direction, n, keys, unsure)


def drafted(
    claimed: ClaimedRun,
    wanted: Iterable[PlannedBatch],
    unknown: Iterable[tuple[int, bytes]],
    *,
    longest: int | None,
    workdir: Path,
) -> Draft:
    """The batches of a plan, in files."""
    gone = claimed.forgotten()
    flagged = PartFile.of((gone.without(Direction.ENTER, *part) for part in unknown), workdir)
    made = Draft(gone, PartFile(workdir), flagged)
    for batch in wanted:
        n, keys = gone.without(batch.direction, batch.n, batch.keys)
        made.left_out[batch.direction] += batch.n - n
        if longest is not None and batch.direction == Direction.ENTER:
            (n, keys), refused = long_keys.split(keys, longest)
            made.refused += refused
        if n:
            made.parts.add(n, keys)
            made.kinds.append((batch.direction, batch.unsure))
    return made


def store(claimed: ClaimedRun, draft: Draft, extension: DataExtension) -> None:
    """Journal the draft; the run goes on to push it."""
    with claimed.transaction() as (session, run):
        destinations.store_data_extension(
            session,
            run.binding.destination_id,
            {"id": extension.id, "key": extension.key, "fields": {f.name: f.type for f in extension.fields}},
            now=claimed.now,
        )
        gone = forgotten.enforced(session, claimed.ctx.db.keyring).besides(draft.known)
        batches.adopt(
            session,
            run,
            (gone.without(Direction.ENTER, *part) for part in draft.unknown),
            data_extension_id=extension.id,
            now=claimed.now,
        )
        refused = [row for row in draft.refused if row.key not in gone]
        rejections.record(session, run, Direction.ENTER, refused, claimed.now)
        run.rejected += len(refused)
        for unsure, wanted in groupby(draft, attrgetter("unsure")):
            batches.plan(
                session,
                run,
                _allowed(wanted, gone, draft.left_out),
                data_extension_id=extension.id,
                first_seq=batches.next_seq(session, run.id),
                unflagged=run.full and unsure,
            )
        run.entered -= draft.left_out[Direction.ENTER]
        run.exited -= draft.left_out[Direction.EXIT]
        run.binding.confirmed_digest = None  # from the first batch on, until a run has pushed all of its own
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.PUSH, now=claimed.now)


def _allowed(
    wanted: Iterable[PlannedBatch], gone: Forgotten, left_out: Counter[Direction]
) -> Iterator[tuple[Direction, int, bytes]]:
    """The batches without who is `gone`, who are counted in `left_out`."""
    for batch in wanted:
        n, keys = gone.without(batch.direction, batch.n, batch.keys)
        left_out[batch.direction] += batch.n - n
        if n:
            yield batch.direction, n, keys
