"""Stage 3: send the planned batches and follow each to its end, at most two jobs in flight per data extension.

A batch is journalled as being sent before its PUT, and its request id is stored before the first poll; so a
kill at any instruction leaves a state from which another worker goes on. No worker sleeps on the vendor: a claim
looks again for a second in all while no other work waits, then it leaves with `wake_at`. A run that gets no slot
leaves without one, and whoever frees a slot wakes it (`models/runs/slots.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy.orm import Session

from models.contact_keys.codec import Value, decode_keys, row_body, sync_row_body
from models.direction import Direction
from models.errors import Cancelled
from models.runs import batches, lifecycle, slots
from models.runs.slots import JOBS_IN_FLIGHT, Woken
from models.tables import PushBatch, SyncRun
from models.types import BatchState, Stage, WriteMode
from worker.claim import ClaimedRun
from worker.inspection.check import flag_value, require_destination
from worker.stages import blackout, job_tracking, write_outcome
from worker.stages.pace import POLL_MIN_SECONDS, Paces
from worker.stages.write_outcome import outcome_of
from worker.vendors.marketing_cloud.client import (
    BATCH_BYTES,
    BATCH_ROWS,
    CONTACT_KEY,
    SYNC_ROWS,
    MarketingCloud,
)

log = structlog.get_logger()

# One claim goes on this long while batches flow; then others get the worker.
CLAIM_SECONDS = 20.0
# In all, so long may a claim look again without anything having moved; and so long at a time although other work waits.
PATIENCE_SECONDS, A_MOMENT_SECONDS = 1.0, 0.1


@dataclass(frozen=True)
class Target:
    """Where the rows go: the data extension's id, the attribute's field and its type."""

    data_extension_id: str
    field: str
    type: str


@dataclass
class _Turn:
    """What followed the end of a job in the same transaction."""

    following: list[PushBatch] = field(default_factory=list)
    woken: list[Woken] | None = None  # whoever gets the slots of a run that has pushed all; none: it has not


@dataclass
class Push:
    """One claim's work on the batches of a run."""

    claimed: ClaimedRun
    cloud: MarketingCloud
    run: SyncRun
    target: Target
    paces: Paces
    done: bool = False

    @property
    def synchronous(self) -> bool:
        """Whether the destination takes rows by synchronous calls, as a fallback."""
        return self.run.binding.destination.write_mode == WriteMode.SYNC

    def go(self) -> Stage | None:
        """Until all is done, or nothing moves, or the claim has lasted long enough."""
        job_tracking.revive(self.claimed)
        end, idle = time.monotonic() + CLAIM_SECONDS, 0.0
        while True:
            flying = self._flying()
            ended, sent = self._poll_due(flying)
            if self.done:
                return Stage.FINISH
            more, wanted = self._fill_slots(JOBS_IN_FLIGHT - len(flying) + ended - sent)
            sent += more
            if wanted:
                self._leave(self._until_next(self._left()), slot_wanted=self.target.data_extension_id)
                return None
            if ended > sent:
                with self.claimed.transaction() as (session, _):
                    woken = self._wake_next(session)
                self.claimed.publish_woken(woken)
            if ended or sent:
                idle = 0.0
                if time.monotonic() > end:
                    return self._go_on()
                continue
            left = self._left()
            if not left:
                return self._done()
            pause = self._until_next(left) or POLL_MIN_SECONDS
            idle += pause
            if idle > PATIENCE_SECONDS or time.monotonic() > end or not self._slept(pause):
                self._leave(self._until_next(left))
                return None

    def _slept(self, seconds: float) -> bool:
        """Whether it slept so long: not if other work waits for this worker, or has waited for a moment meanwhile."""
        if seconds > A_MOMENT_SECONDS and self.claimed.others_wait():
            return False
        until, before = time.monotonic() + seconds, False
        while (left := until - time.monotonic()) > A_MOMENT_SECONDS:
            time.sleep(A_MOMENT_SECONDS)
            waits = self.claimed.others_wait()
            if before and waits:
                return False
            before = waits
        time.sleep(max(0.0, left))
        return True

    def _fill_slots(self, free: int) -> tuple[int, bool]:
        """Send batches into at most so many slots: how many were sent, and whether another waits for a slot."""
        sent = 0
        while sent < free and self._any_due():
            with self.claimed.transaction() as (session, run):
                job = self._take(session, run)
                waits = not job and self._may_send(run)
                wanted = waits and batches.slot_wanted(session, run, now=self.claimed.now) is not None
            if not job:
                return sent, wanted
            self._send(job)
            sent += 1
        return sent, False

    def _may_send(self, run: SyncRun) -> bool:
        return not run.cancel_requested and blackout.until(run.binding, self.claimed.now) is None

    def _take(self, session: Session, run: SyncRun) -> list[PushBatch]:
        """What is sent next, if a free slot is this run's."""
        if not self._may_send(run):
            return []
        together = 0 if self.synchronous else BATCH_ROWS
        rules, now = self.claimed.slot_rules, self.claimed.now
        return batches.take_slot(session, run, rules, now=now, rows_together=together)

    def _any_due(self) -> bool:
        """Whether a transaction is worth it."""
        with self.claimed.ctx.db.read() as session:
            return batches.due_for(session, self.run.id, now=self.claimed.now) is not None

    def _wake_next(self, session: Session) -> list[Woken]:
        """Who gets the slots that this run leaves free; to be published after the commit."""
        return slots.wake(
            session, self.target.data_extension_id, self.claimed.slot_rules, now=self.claimed.now
        )

    def _send(self, job: list[PushBatch]) -> None:
        """Send what was taken for one slot."""
        extension = self.target.data_extension_id
        if self.synchronous:
            (batch,) = job
            keys = decode_keys(batch.keys)
            if len(keys) > SYNC_ROWS:  # planned while the destination took jobs
                parts = [keys[at : at + SYNC_ROWS] for at in range(0, len(keys), SYNC_ROWS)]
                write_outcome.replace(self.claimed, batch, parts)
                return
            body = sync_row_body(keys, self._value(batch), CONTACT_KEY, self.target.field)
            self.claimed.require_lease()
            outcome = outcome_of(lambda: self.cloud.save(extension, body))
        else:
            job, body = self._body(job)
            self.claimed.require_lease()
            outcome = outcome_of(lambda: self.cloud.submit(extension, body))
        first_look = self.paces.of(rows_of(job)).first()
        write_outcome.apply(self.claimed, self.cloud, job, outcome, first_look=first_look)

    def _body(self, job: list[PushBatch]) -> tuple[list[PushBatch], bytes]:
        """The request, of fewer batches where they are too large together."""
        while True:
            parts = [(decode_keys(batch.keys), self._value(batch)) for batch in job]
            body = row_body(parts, CONTACT_KEY, self.target.field)
            if len(job) == 1 or len(body) <= BATCH_BYTES:
                return job, body
            with self.claimed.transaction() as (session, _):
                batches.not_sent(session, job[-1].id)
            job = job[:-1]

    def _value(self, batch: PushBatch) -> Value:
        return flag_value(self.target.type, entering=batch.direction == Direction.ENTER)

    def _flying(self) -> list[list[PushBatch]]:
        with self.claimed.ctx.db.read() as session:
            return batches.jobs(batches.in_flight(session, self.run.id))

    def _left(self) -> list[PushBatch]:
        """What is in flight, and the next to be sent unless the run is to be cancelled."""
        with self.claimed.ctx.db.read() as session:
            left = batches.left(session, self.run.id)
            if left and session.get_one(SyncRun, self.run.id).cancel_requested:
                return [batch for batch in left if batch.state != BatchState.PLANNED]
            return left

    def _poll_due(self, flying: list[list[PushBatch]]) -> tuple[int, int]:
        """Look at the jobs whose time has come: how many have ended, and how many were sent in their place."""
        ended = sent = 0
        for job in flying:
            now, first, rows = self.claimed.now, job[0], rows_of(job)
            if first.due_at is not None and first.due_at > now:
                continue
            age = (now - (first.sent_at or now)).total_seconds()
            turn = _Turn()
            pause = self.paces.of(rows).again(age)
            then = partial(self._turn_over, turn)
            if not job_tracking.poll(self.claimed, self.cloud, job, pause=pause, then=then):
                continue
            ended += 1
            if first.due_at is not None:
                late = (now - first.due_at).total_seconds()
                self.paces.learn(rows, age, first.polls, late=late)
            if turn.following:
                self._send(turn.following)
                sent += 1
            if turn.woken is not None:
                self.claimed.publish_woken(turn.woken)
                self.done = True
        return ended, sent

    def _turn_over(self, turn: _Turn, session: Session, run: SyncRun) -> None:
        """In the transaction in which a job has ended: take what is sent in its place, or go on if that was all."""
        turn.following = self._take(session, run)
        if not turn.following and not batches.left(session, run.id):
            turn.woken = self._pushed(session, run)

    def _until_next(self, left: list[PushBatch]) -> float | None:
        """Seconds to the next look at a job, or to a batch that was put off; none if only a slot is waited for."""
        now = self.claimed.now
        waits = [(batch.due_at - now).total_seconds() for batch in left if batch.due_at is not None]
        return max(0.01, min(waits)) if waits else None

    def _leave(self, pause: float | None, *, slot_wanted: str | None = None) -> None:
        """Free the worker until something can have moved."""
        with self.claimed.transaction() as (session, run):
            silence = blackout.until(run.binding, self.claimed.now)
            if silence is not None and not batches.in_flight(session, run.id):
                blackout.wait(run, silence)
            else:
                later = None if pause is None else self.claimed.later(pause)
                lifecycle.wait(run, later, slot_wanted=None if silence is not None else slot_wanted)
                if later is None:
                    lifecycle.note_error(run, None)
            woken = self._wake_next(session)
        self.claimed.publish_woken(woken)

    def _go_on(self) -> Stage:
        """Free the worker, and go on as soon as there is one again."""
        with self.claimed.transaction() as (_, run):
            lifecycle.release(run, now=self.claimed.now)
        return Stage.PUSH

    def _done(self) -> Stage:
        with self.claimed.transaction() as (session, run):
            if run.cancel_requested and batches.count_by_state(session, run.id).get(BatchState.PLANNED):
                raise Cancelled("CANCELLED", binding=run.binding.name)
            woken = self._pushed(session, run)
        self.claimed.publish_woken(woken)
        return Stage.FINISH

    def _pushed(self, session: Session, run: SyncRun) -> list[Woken]:
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.FINISH, now=self.claimed.now)
        return self._wake_next(session)


def rows_of(job: list[PushBatch]) -> int:
    """How many rows it has."""
    return sum(batch.n for batch in job)


def push(claimed: ClaimedRun) -> Stage | None:
    """Bring every planned batch to its end."""
    run = claimed.load()
    with claimed.marketing_cloud(run.binding.destination) as cloud:
        target = _target(cloud, run)
        return Push(claimed, cloud, run, target, Paces(claimed.ctx.redis, target.data_extension_id)).go()


def _target(cloud: MarketingCloud, run: SyncRun) -> Target:
    """Where the rows go, as the diff found it; found anew if the destination was changed since."""
    stored = run.binding.destination.data_extension
    if stored is not None:
        for name, kind in stored["fields"].items():
            if name.casefold() == run.binding.attribute_key:
                return Target(stored["id"], name, kind)
    extension, attribute = require_destination(cloud, run.binding)
    return Target(extension.id, attribute.name, attribute.type)
