"""What Marketing Cloud holds against what the state says, by the diff that plans every run.

The state stands in for the snapshot and the reading for the state: whom such a run would flag is *missing* there,
and whom it would unflag is *extra*. Changes nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.database import Database
from models.direction import Direction
from models.errors import TransientError
from models.tables import CohortBinding
from worker.inspection import members
from worker.inspection.readback import Readback
from worker.membership.diff import Diff, StateReader, compare
from worker.membership.key_sources import KeyBlobs
from worker.vendors.marketing_cloud.client import BATCH_BYTES, BATCH_ROWS


@dataclass(frozen=True)
class Comparison:
    """expected = members of the state; present = contacts flagged there; missing and extra are the differences."""

    expected: int
    present: int
    missing: int
    extra: int
    _found: Diff

    @property
    def equal(self) -> bool:
        """Whether every member is flagged there, and nobody else."""
        return not (self.missing or self.extra)

    def sample(self, n: int) -> tuple[list[str], list[str]]:
        """At most so many keys that are missing, and that are extra."""
        return self._found.sample(Direction.ENTER, n), self._found.sample(Direction.EXIT, n)

    def blobs(self, direction: Direction) -> Iterator[tuple[int, bytes]]:
        """(rows, keys) of the missing (ENTER) or the extra (EXIT)."""
        for batch in self._found.batches(row_overhead=0, max_rows=BATCH_ROWS, max_bytes=BATCH_BYTES):
            if batch.direction == direction:
                yield batch.n, batch.keys


def audit(db: Database, binding: CohortBinding, reading: Readback, *, workdir: Path, seed: int) -> Comparison:
    """Compare; MC_ROWS_MOVED if the reading has not seen every row, and it is forgotten then."""
    known = KeyBlobs(
        lambda: (blob for _, blob in members.of_state(db, binding, workdir)),
        binding.destination.contact_key_property,
        binding.member_count,
    )
    found = compare(known, as_state(reading), workdir=workdir, seed=seed)
    counts = found.counts
    unseen = reading.unseen(counts.state_named)
    if unseen:
        told = f"{unseen:,}", f"{reading.count:,}"
        reading.begin_again()
        raise TransientError("MC_ROWS_MOVED", unseen=told[0], count=told[1])
    return Comparison(counts.members, counts.state_members, counts.entered, counts.exited, found)


def as_state(reading: Readback) -> StateReader:
    """The reading as a diff reads a state."""
    return StateReader(
        chunks=lambda: iter(()), deltas=reading.log, uncertain=lambda: iter(()), members=reading.rows
    )
