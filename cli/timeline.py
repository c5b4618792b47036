"""A run's claims as a timeline: when a worker had it, at which stage, and what it waited for in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from models.tables import StageClaim, SyncRun
from models.types import RunState, Stage

NOTHING = timedelta()
SHOWN = timedelta(milliseconds=50)  # a shorter wait is none
PUBLISHED_AGAIN = timedelta(
    seconds=10
)  # a run between two stages, or one that is being taken over, is not lost
# What a run waits for that says no error, by the stage that left it so.
_OUTSIDE = {Stage.SNAPSHOT: "Amplitude", Stage.PUSH: "Marketing Cloud"}
WORKER, PERSON, LOST = "a worker", "a decision", "a lost worker's lease to end"
BEFORE = "the run before it to end"


@dataclass(frozen=True)
class Piece:
    """A length of time: at work, or waiting for something (`lost`: for a worker that gave no sign of life)."""

    begin: datetime
    end: datetime
    waits_for: str | None = None
    code: bool = False  # `waits_for` is an error's code

    @property
    def length(self) -> timedelta:
        """How long it took."""
        return max(NOTHING, self.end - self.begin)

    @property
    def kind(self) -> str:
        """How it is drawn."""
        return "work" if self.waits_for is None else "lost" if self.waits_for == LOST else "wait"


@dataclass
class Step:
    """Claims of one stage, one after the other. `claimed_at` none: no worker has had it yet."""

    stage: str
    claimed_at: datetime | None = None
    claims: int = 0
    workers: list[str] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    @property
    def worked(self) -> timedelta:
        """How long workers had it."""
        return sum((one.length for one in self.pieces if one.waits_for is None), NOTHING)

    @property
    def waits(self) -> list[tuple[str, bool, timedelta]]:
        """What it waited for, whether that is an error's code, and how long in all; the longest first."""
        sums: dict[tuple[str, bool], timedelta] = {}
        for one in self.pieces:
            if one.waits_for is not None and one.length >= SHOWN:
                key = one.waits_for, one.code
                sums[key] = sums.get(key, NOTHING) + one.length
        return [(*key, length) for key, length in sorted(sums.items(), key=lambda item: -item[1])]


def steps(run: SyncRun, claims: Sequence[StageClaim], now: datetime) -> list[Step]:
    """The run's steps from when it was made to its end, or to `now`; of one older than the claims what is known."""
    found: list[Step] = []
    if not claims and run.started_at is not None:
        return found
    cursor, waits = _beginning(run, claims)
    for claim in claims:
        if not found or found[-1].stage != claim.stage:
            found.append(Step(claim.stage, claim.claimed_at))
        step = found[-1]
        step.pieces.append(Piece(cursor, claim.claimed_at, *waits))
        step.claims += 1
        if claim.worker and claim.worker not in step.workers:
            step.workers.append(claim.worker)
        left_at = now if claim is claims[-1] and _at_work(run, now) else claim.left_at
        if left_at is not None:
            step.pieces.append(Piece(claim.claimed_at, left_at))
        cursor, waits = left_at or claim.claimed_at, _left(claim)
    end = run.finished_at or now
    if cursor < end:
        if not found or (run.finished_at is None and found[-1].stage != run.stage):
            found.append(Step(run.stage))
        found[-1].pieces.append(Piece(cursor, end, *waits))
    return found


def _beginning(run: SyncRun, claims: Sequence[StageClaim]) -> tuple[datetime, tuple[str, bool]]:
    """Since when it is known, and what it waited for then."""
    if claims and claims[0].fence > 1:
        return claims[0].claimed_at, (WORKER, False)
    return run.created_at, (BEFORE if run.state == RunState.DEFERRED else WORKER, False)


def lost_since(run: SyncRun, now: datetime) -> datetime | None:
    """Since when the run's worker has given no sign of life; none where it has, or nobody has the run."""
    if run.state != RunState.RUNNING or run.lease_until is None or run.lease_until > now - PUBLISHED_AGAIN:
        return None
    return run.lease_until


def _at_work(run: SyncRun, now: datetime) -> bool:
    return run.state == RunState.RUNNING and run.lease_until is not None and run.lease_until > now


def _left(claim: StageClaim) -> tuple[str, bool]:
    """What the run waits for after this claim, and whether that is an error's code."""
    if claim.left_at is None:
        return LOST, False
    if claim.left == RunState.HELD:
        return PERSON, False
    if claim.left != RunState.WAITING:
        return WORKER, False
    if claim.code is not None:
        return claim.code, True
    return _OUTSIDE.get(claim.stage, "its next look"), False
