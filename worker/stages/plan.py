"""The end of a diff: what was found as batches, journalled, and let count by one commit.

Everybody else who writes to SQLite waits for a transaction. So the batches are made before, and are journalled some to
a commit while the run is still at its diff, where nobody sends them. A short commit takes the run to its push; a plan
that is small is journalled by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from sqlalchemy.orm import Session

from models.contact_keys.codec import row_overhead
from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.database.steps import step
from models.direction import Direction
from models.runs import batches, lifecycle, rejections
from models.runs.rejections import RejectedRow
from models.setup import destinations
from models.tables import SyncRun
from models.types import Stage, WriteMode
from worker.claim import ClaimedRun
from worker.inspection.check import flag_value
from worker.membership.diff import Diff, PlannedBatch
from worker.membership.part_file import PartFile
from worker.stages import long_keys
from worker.stages.parts_ahead import TRIES
from worker.vendors.marketing_cloud.client import (
    BATCH_BYTES,
    BATCH_ROWS,
    CONTACT_KEY,
    SYNC_ROWS,
    DataExtension,
    Field,
)

STEP_BYTES = 4 << 20


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

    def between(self, start: int, stop: int) -> Iterator[PlannedBatch]:
        """The batches from `start` on, before `stop`."""
        parts = self.parts.between(start, stop)
        for (direction, unsure), (n, keys) in zip(self.kinds[start:stop], parts, strict=True):
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


def sweep(claimed: ClaimedRun) -> None:
    """Remove what an earlier attempt at the run's diff has journalled of a plan that it did not end."""
    with claimed.ctx.db.read() as session:
        if not batches.any_drafts(session, claimed.claim.run_id):
            return
    batches.drop_drafts(claimed, claimed.claim.run_id)


def store(claimed: ClaimedRun, draft: Draft, extension: DataExtension) -> None:
    """Journal the draft; the run goes on to push it.

    Only where somebody is forgotten again and again meanwhile it is journalled at once.
    """
    _adopt(claimed, draft, extension)
    tries = 1
    while not _journalled(claimed, draft, extension, at_once=tries == TRIES):
        sweep(claimed)
        tries += 1


def _adopt(claimed: ClaimedRun, draft: Draft, extension: DataExtension) -> None:
    """Make flags that were read back state, some to a commit: they are there, whatever becomes of the plan."""
    for start, stop in _steps(draft.unknown):
        with step(claimed) as (session, run):
            gone = forgotten.enforced(session, claimed.ctx.db.keyring).besides(draft.known)
            batches.adopt(
                session,
                run,
                (gone.without(Direction.ENTER, *part) for part in draft.unknown.between(start, stop)),
                data_extension_id=extension.id,
                now=claimed.now,
            )


def _journalled(claimed: ClaimedRun, draft: Draft, extension: DataExtension, *, at_once: bool) -> bool:
    """Journal the batches, and let them count; False if somebody was forgotten meanwhile."""
    known, left_out = claimed.forgotten(), Counter(draft.left_out)
    new = known.besides(draft.known)
    steps, whole = _steps(draft.parts), len(draft.parts)
    ahead = steps if len(steps) > 1 and not at_once else []
    for start, stop in ahead:
        made = list(_allowed(draft.between(start, stop), new, left_out))
        with step(claimed) as (session, run):
            if forgotten.enforced(session, claimed.ctx.db.keyring) != known:
                return False
            _plan(session, run, made, extension)
    with claimed.transaction() as (session, run):
        gone = forgotten.enforced(session, claimed.ctx.db.keyring)
        if ahead and gone != known:
            return False
        new = gone.besides(draft.known)
        _plan(session, run, _allowed(draft.between(whole if ahead else 0, whole), new, left_out), extension)
        destinations.store_data_extension(
            session,
            run.binding.destination_id,
            {"id": extension.id, "key": extension.key, "fields": {f.name: f.type for f in extension.fields}},
            now=claimed.now,
        )
        refused = [row for row in draft.refused if row.key not in new]
        rejections.record(session, run, Direction.ENTER, refused, claimed.now)
        run.rejected += len(refused)
        run.entered -= left_out[Direction.ENTER]
        run.exited -= left_out[Direction.EXIT]
        run.binding.confirmed_digest = None  # from the first batch on, until a run has pushed all of its own
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.PUSH, now=claimed.now)
    return True


def _steps(parts: PartFile) -> list[tuple[int, int]]:
    """From which part to which they are stored by one commit."""
    found, start, size = [], 0, 0
    for part in range(len(parts)):
        if part > start and size + parts.size(part) > STEP_BYTES:
            found.append((start, part))
            start, size = part, 0
        size += parts.size(part)
    return [*found, (start, len(parts))] if len(parts) else []


def _allowed(
    wanted: Iterable[PlannedBatch], gone: Forgotten, left_out: Counter[Direction]
) -> Iterator[PlannedBatch]:
    """The batches without who is `gone`, who are counted in `left_out`."""
    for batch in wanted:
        n, keys = gone.without(batch.direction, batch.n, batch.keys)
        left_out[batch.direction] += batch.n - n
        if n:
            yield PlannedBatch(batch.direction, n, keys, batch.unsure)


def _plan(session: Session, run: SyncRun, wanted: Iterable[PlannedBatch], extension: DataExtension) -> None:
    for unsure, alike in groupby(wanted, attrgetter("unsure")):
        batches.plan(
            session,
            run,
            ((batch.direction, batch.n, batch.keys) for batch in alike),
            data_extension_id=extension.id,
            first_seq=batches.next_seq(session, run.id),
            unflagged=run.full and unsure,
        )
