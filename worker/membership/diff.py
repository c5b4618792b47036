"""What changed: a snapshot against the state that Marketing Cloud has acknowledged.

Both sides are read once, spilled as fingerprints into partitions, and compared partition by partition, so memory
does not grow with the share of the cohort that changed, and by about five bytes a row with the cohort. What changed is
spilled again and read back when batches are planned. The order of the batches depends on the seed, nothing else does.

Nothing here knows SQL, HTTP or a run. A fingerprint decides that two keys are one contact, by `comparison_key`;
see `fingerprint` for why no change is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.contact_keys.key_array import TEXT, KeyArray
from models.direction import Direction
from worker.membership import batching, heap
from worker.membership.fingerprint import Fingerprints
from worker.membership.key_sources import KeySource
from worker.membership.loader import PARTITION, THREADS, DiffInput, Intake, Marks, Totals, ordered
from worker.membership.merge import NOTHING, PartitionOutcome, Records, merge, reduced
from worker.membership.spool import KeySpool
from worker.membership.twins import Twins

__all__ = ["Diff", "DiffCounts", "Direction", "PlannedBatch", "StateReader", "compare"]

_OVERSIZE = 8 * PARTITION
"""More records of one side in a partition are repetitions, and are thinned out while they are read."""

_SNAPSHOT, _STATE, _UNSURE = range(3)
"""Who names a key: the snapshot, the state, or a push whose outcome is unknown."""

_SIDES = {Direction.EXIT: (_STATE, _UNSURE), Direction.ENTER: (_SNAPSHOT,)}
"""Whose keys exit, and whose enter, in the order in which they are pushed."""


@dataclass(frozen=True)
class StateReader:
    """What Marketing Cloud has acknowledged; each callable reads anew from the start.

    `chunks` is the compacted base, `deltas` what was acknowledged since, in order; the last word on a key counts.
    `uncertain` are the keys of pushes whose outcome is unknown. `members` may be a guess.
    """

    chunks: Callable[[], Iterator[bytes]]
    deltas: Callable[
        [], Iterator[tuple[str, bytes]]
    ]  # "enter" or "exit", as any of the enums or a plain word
    uncertain: Callable[[], Iterator[bytes]]
    members: int


@dataclass(frozen=True)
class DiffCounts:
    """snapshot_rows = members + blank + duplicate; members = entered + unchanged.

    `members` are the distinct contacts of the snapshot, `state_members` those of the state before, `removed` those
    of them that exited. An uncertain key counts as entered or exited, because it has to be pushed. `state_named` are
    the contacts that the state says anything of, members or not.

    `spared` did not exit: a collation may take them for a member (`twins`), and they stay in the state. `odd` rows have
    a key that no person has (`odd_keys`). `spanned` are the lines that quoted cells hold beside their first one, and
    `spanned_rows` of them are shaped like a row.
    """

    snapshot_rows: int
    members: int
    blank: int
    duplicate: int
    entered: int
    exited: int
    unchanged: int
    state_members: int
    state_named: int
    removed: int
    spared: int
    odd: int
    spanned: int
    spanned_rows: int


@dataclass(frozen=True)
class PlannedBatch:
    """One request to come: `keys` is a blob of the codec with `n` keys.

    `unsure`: they leave because a push of them is uncertain, and the state does not have them as members.
    """

    direction: Direction
    n: int
    keys: bytes
    unsure: bool = False


class Diff:
    """The outcome, and the way back to the keys; its files are gone when it is."""

    def __init__(self, counts: DiffCounts, totals: Totals, changes: _Changes) -> None:
        self.counts = counts
        self.digest = totals.digest
        self.longest_key = totals.longest
        self.odd_samples = totals.odd.samples
        self._changes = changes

    def sample(self, direction: Direction, n: int) -> list[str]:
        """The first keys of that direction, as they are to be pushed."""
        found: list[str] = []
        for keys in self._changes.of(direction):
            found += keys.slice(0, n - len(found)).to_list()
            if len(found) >= n:
                break
        return found

    def entering(self) -> Iterator[str]:
        """The keys of everybody who enters, as they are to be pushed."""
        for keys in self._changes.of(Direction.ENTER):
            yield from keys.to_list()

    def batches(
        self, *, row_overhead: int, max_rows: int = 25_000, max_bytes: int = 4_500_000
    ) -> Iterator[PlannedBatch]:
        """The requests to make; `row_overhead` is `codec.row_overhead` of the field to be written.

        Exits come first. A flag left on somebody who went reaches a person it should not, a late one only waits.
        And should Marketing Cloud take two keys for one row that `comparison_key` tells apart, the one that is
        in the cohort is written last and stands.
        """
        for direction, sides in _SIDES.items():
            for side in sides:
                keys = self._changes.of_side(side)
                for n, blob in batching.batches(
                    keys, row_overhead=row_overhead, max_rows=max_rows, max_bytes=max_bytes
                ):
                    yield PlannedBatch(direction, n, blob, unsure=side == _UNSURE)


class _Changes:
    """UUIDs that changed, as they come from the partitions; marks on the rows of texts that did."""

    def __init__(
        self, snapshot: DiffInput, state: DiffInput, uncertain: DiffInput, twins: Twins, workdir: Path
    ) -> None:
        self._sides = [snapshot, state, uncertain]
        self._folds = [side.folds for side in self._sides]
        self._twins = twins
        self._kinds = [side.joined_kinds() for side in self._sides]
        self._marks = [Marks.none(side.rows) for side in self._sides]
        self._uuids = [KeySpool(workdir) for _ in self._sides]
        self.counts = dict.fromkeys(Direction, 0)
        self.removed = self.spared = 0

    def add(self, outcome: PartitionOutcome) -> None:
        left = self._going(_STATE, outcome.exited)
        changed = (outcome.entered, left, self._going(_UNSURE, outcome.exited_uncertain))
        self.removed += len(left[0])
        for number, (hi, lo, rows) in enumerate(changed):
            direction = Direction.ENTER if number == _SNAPSHOT else Direction.EXIT
            self.counts[direction] += len(rows)
            kind = self._kinds[number][rows]
            plain = kind != TEXT
            self._marks[number].add(rows[~plain])
            if plain.any():
                self._uuids[number].append(KeyArray.of_uuids(kind[plain], hi[plain], lo[plain]))

    def _going(self, number: int, records: Records) -> Records:
        """Those of the exits of one side that have no twin in the cohort."""
        hi, lo, rows = records
        spared = self._twins.among(self._folds[number], hi, lo, rows.astype(np.int64))
        if not spared.any():
            return records
        self.spared += int(np.count_nonzero(spared))
        return hi[~spared], lo[~spared], rows[~spared]

    def of(self, direction: Direction) -> Iterator[KeyArray]:
        for number in _SIDES[direction]:
            yield from self.of_side(number)

    def of_side(self, number: int) -> Iterator[KeyArray]:
        """Of those that this side names, who changed: entered if it is the snapshot, else left."""
        yield from self._uuids[number]
        yield from self._sides[number].texts(self._marks[number])


def compare(snapshot: KeySource, state: StateReader, *, workdir: Path, seed: int) -> Diff:
    """Read everything once and decide; returns only if the whole snapshot was good.

    Temporary files go to `workdir`: about 20 bytes a row of either side, 17 a change, and the texts of keys
    that are no UUIDs.
    """
    heap.prepare()
    fingerprints = Fingerprints(seed)
    with snapshot.opened(workdir) as source, ThreadPoolExecutor(THREADS, "diff") as pool:
        intake = Intake(pool, fingerprints, max(source.expected, state.members), workdir)
        rows, totals = source.read(intake)
        known, alive = _state(intake, state)
        unsure = intake.blobs(state.uncertain())
        twins = Twins(rows.folds, rows.prints, (known.folds, unsure.folds), intake.bits, fingerprints)
        changes = _Changes(rows, known, unsure, twins, workdir)
        sides = (known, unsure, rows)

        def decide(partition: int) -> PartitionOutcome:
            records = [_records(side, partition, fingerprints, last=side is not rows) for side in sides]
            return merge(records[0], alive.at(records[0][2]), records[1], records[2], fingerprints)

        members = before = named = 0
        for outcome in ordered(pool, decide, range(intake.partitions)):
            changes.add(outcome)
            members += outcome.members
            before += outcome.known
            named += outcome.named
    entered = changes.counts[Direction.ENTER]
    counts = DiffCounts(
        snapshot_rows=totals.rows,
        members=members,
        blank=totals.blank,
        duplicate=totals.rows - totals.blank - members,
        entered=entered,
        exited=changes.counts[Direction.EXIT],
        unchanged=members - entered,
        state_members=before,
        state_named=named,
        removed=changes.removed,
        spared=changes.spared,
        odd=totals.odd.rows,
        spanned=totals.spans.lines,
        spanned_rows=totals.spans.rows,
    )
    return Diff(counts, totals, changes)


def _state(intake: Intake, state: StateReader) -> tuple[DiffInput, Marks]:
    """The base and the batches after it, and of each row whether it made its contact a member."""
    enters: list[bool] = []

    def blobs() -> Iterator[bytes]:
        for blob in state.chunks():
            enters.append(True)
            yield blob
        for direction, blob in state.deltas():
            enters.append(direction == Direction.ENTER)
            yield blob

    side = intake.blobs(blobs())
    return side, Marks.where(np.repeat(np.array(enters, np.bool_), [len(kind) for kind in side.kinds]))


def _records(side: DiffInput, partition: int, fingerprints: Fingerprints, *, last: bool) -> Records:
    if side.prints.size(partition) > _OVERSIZE:
        return reduced(side.prints.read(partition, PARTITION), fingerprints, last=last)
    return next(side.prints.read(partition, 1 << 62), NOTHING)
