"""Stage 3: send the planned batches and follow each to its end, at most two jobs in flight per data extension.

A batch is journalled as being sent before its PUT, and its request id is stored before the first poll; so a
kill at any instruction leaves a state from which another worker goes on. No slot sleeps on the vendor: a claim
looks again for a second in all while jobs move and nobody else wants the slot, then it leaves with `wake_at`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from config.queue import KEY_PREFIX, QUEUE
from models.contact_keys.codec import decode_keys, encode_keys, row_bodies
from models.direction import Direction
from models.errors import ConfigurationError, RateLimited, SyncError
from models.runs import batches, lifecycle
from models.tables import PushBatch, SyncRun
from models.types import BatchState, Stage, WriteMode
from worker.claim import ClaimedRun
from worker.inspection.check import flag_value, require_destination
from worker.stages import blackout, job_tracking, refusals, sync_rows
from worker.vendors.http import NotSentError
from worker.vendors.marketing_cloud.client import (
    CONTACT_KEY,
    JOBS_IN_FLIGHT,
    MarketingCloud,
    PayloadTooLargeError,
)
from worker.vendors.marketing_cloud.transport import BatchRefusedError

log = structlog.get_logger()

# One claim goes on this long while batches flow; then others get the slot.
CLAIM_SECONDS = 20.0
# In all, so long may a claim look again without anything having moved.
PATIENCE_SECONDS = 1.0
# The first look at a job: jobs of one row took 0.5-2 s, of thousands 2-20 s, in the worst case minutes.
FIRST_POLL_SECONDS = 0.25
POLL_MIN_SECONDS = 0.03
POLL_MAX_SECONDS = 15.0
NO_SLOT_SECONDS = 1.0
# A PUT that failed like this was not queued. All else (no answer, a server's error, an odd answer) tells nothing.
NOT_QUEUED = (NotSentError, RateLimited, ConfigurationError)


@dataclass
class Pace:
    """How long this vendor's jobs take at present, in seconds, learned from the ones that ended."""

    seconds: float = FIRST_POLL_SECONDS

    def first(self) -> float:
        """When to look first at a new job."""
        return min(POLL_MAX_SECONDS, max(POLL_MIN_SECONDS, 0.9 * self.seconds))

    def again(self, waited: float) -> float:
        """When to look again at a job that is so old: it is found before it has taken twice its time."""
        return min(POLL_MAX_SECONDS, max(POLL_MIN_SECONDS, self.seconds / 4, waited))

    def ended(self, took: float, looks: int) -> None:
        """A job was found ended that long after it was submitted, at this look.

        Found at the first look it may have ended much earlier, so the next one is looked at sooner: much sooner
        as long as a look costs less than waiting for it.
        """
        if looks == 0:
            took *= 0.5 if took < 1 else 0.85
        self.seconds = (self.seconds + took) / 2


@dataclass(frozen=True)
class Target:
    """Where the rows go: the data extension's id, the attribute's field and its type."""

    data_extension_id: str
    field: str
    type: str


@dataclass
class Push:
    """One claim's work on the batches of a run."""

    hold: ClaimedRun
    cloud: MarketingCloud
    run: SyncRun
    target: Target
    pace: Pace
    submitted_at: dict[int, datetime] = field(default_factory=dict)

    @property
    def synchronous(self) -> bool:
        """Whether the destination takes rows by synchronous calls, as a fallback."""
        return self.run.binding.destination.write_mode == WriteMode.SYNC

    def go(self) -> Stage | None:
        """Until all is done, or nothing moves, or the claim has lasted long enough."""
        job_tracking.revive(self.hold)
        end, idle = time.monotonic() + CLAIM_SECONDS, 0.0
        while True:
            flying = self._flying()
            ended = self._poll_due(flying)
            moved = self._fill_slots(JOBS_IN_FLIGHT - len(flying) + ended) or bool(ended)
            left = self._left()
            if not left:
                return self._done()
            if moved:
                idle = 0.0
                if time.monotonic() > end:
                    return self._leave(None)
                continue
            pause = self._until_next(left)
            idle += pause
            if idle > PATIENCE_SECONDS or time.monotonic() > end or _others_wait(self.hold):
                return self._leave(pause)
            time.sleep(pause)

    def _fill_slots(self, free: int) -> bool:
        """Send batches into at most so many slots; whether one was sent."""
        sent = False
        for _ in range(free):
            with self.hold.transaction() as (session, run):
                if run.cancel_requested or blackout.until(run.binding, self.hold.now) is not None:
                    return sent
                batch = batches.take_slot(
                    session,
                    run,
                    limit=JOBS_IN_FLIGHT,
                    now=self.hold.now,
                    deadline=self.hold.ctx.settings.job_deadline_seconds,
                    orphaned=self.hold.ctx.settings.uncertain_seconds,
                )
            if batch is None:
                return sent
            self._send(batch)
            sent = True
        return sent

    def _send(self, batch: PushBatch) -> None:
        target = self.target
        value = flag_value(target.type, entering=batch.direction == Direction.ENTER)
        if self.synchronous:
            sync_rows.send(self.hold, self.cloud, batch, target.data_extension_id, target.field, value)
            return
        body = row_bodies(decode_keys(batch.keys), CONTACT_KEY, target.field, value)
        self.hold.require_lease()
        try:
            request_id = self.cloud.submit(target.data_extension_id, body)
        except PayloadTooLargeError as error:
            self._split(batch, error)
            return
        except BatchRefusedError as error:
            refusals.refused(self.hold, self.cloud, batch, error.rows, error)
            return
        except SyncError as error:
            job_tracking.unsent(self.hold, batch.id, error, uncertain=not isinstance(error, NOT_QUEUED))
            refusals.failed(self.hold, self.cloud, batch, error)
            raise
        self.submitted_at[batch.id] = self.hold.now
        with self.hold.transaction() as (session, _):
            batches.submitted(session, batch.id, request_id, poll_at=self.hold.later(self.pace.first()))

    def _split(self, batch: PushBatch, error: PayloadTooLargeError) -> None:
        """413: two halves instead of one batch."""
        keys = decode_keys(batch.keys)
        if len(keys) == 1:
            refusals.halve(self.hold, self.cloud, batch, [("HTTP_413", error.message)], error)
            return
        half = len(keys) // 2
        with self.hold.transaction() as (session, run):
            batches.split(
                session,
                run,
                batch.id,
                [(len(part), encode_keys(part)) for part in (keys[:half], keys[half:])],
                sent=batch.attempts > 1,
            )

    def _flying(self) -> list[PushBatch]:
        with self.hold.ctx.db.read() as session:
            return batches.in_flight(session, self.run.id)

    def _left(self) -> list[PushBatch]:
        """What is in flight, and the next to be sent unless the run is to be cancelled."""
        with self.hold.ctx.db.read() as session:
            left = batches.in_flight(session, self.run.id)
            following = batches.next_planned(session, self.run.id)
            if following is not None and not session.get_one(SyncRun, self.run.id).cancel_requested:
                left.append(following)
            return left

    def _poll_due(self, flying: list[PushBatch]) -> int:
        """Look at the jobs whose time has come; how many have ended."""
        ended = 0
        for batch in flying:
            if batch.due_at is not None and batch.due_at > self.hold.now:
                continue
            started = self.submitted_at.get(batch.id, batch.sent_at) or self.hold.now
            pause = self.pace.again((self.hold.now - started).total_seconds())
            if job_tracking.poll(self.hold, self.cloud, batch, pause=pause):
                ended += 1
                self.submitted_at.pop(batch.id, None)
                self.pace.ended((self.hold.now - started).total_seconds(), batch.polls)
        return ended

    def _until_next(self, left: list[PushBatch]) -> float:
        """Seconds to the next look at a job, to a batch put off, or for a slot to become free."""
        now = self.hold.now
        waits = [(b.due_at - now).total_seconds() for b in left if b.due_at is not None]
        if any(b.due_at is None or b.due_at <= now for b in left if b.state == BatchState.PLANNED):
            waits.append(NO_SLOT_SECONDS)
        return max(0.01, min(waits, default=NO_SLOT_SECONDS))

    def _leave(self, pause: float | None) -> Stage | None:
        """Free the slot: at once for the next claim, or until something can have moved."""
        with self.hold.transaction() as (session, run):
            silence = blackout.until(run.binding, self.hold.now)
            if silence is not None and not batches.in_flight(session, run.id):
                blackout.wait(run, silence)
                return None
            if pause is None:
                lifecycle.release(run, now=self.hold.now)
                return Stage.PUSH
            lifecycle.wait(run, self.hold.later(pause))
        return None

    def _done(self) -> Stage:
        with self.hold.transaction() as (session, run):
            if run.cancel_requested and batches.count_by_state(session, run.id).get(BatchState.PLANNED):
                raise ConfigurationError("CANCELLED", binding=run.binding.name)
            lifecycle.note_error(run, None)
            lifecycle.advance(run, Stage.FINISH, now=self.hold.now)
        return Stage.FINISH


def push(hold: ClaimedRun) -> Stage | None:
    """Bring every planned batch to its end."""
    run = hold.load()
    with hold.marketing_cloud(run.binding.destination) as cloud:
        return Push(hold, cloud, run, _target(cloud, run), _pace(hold, run)).go()


def _pace(hold: ClaimedRun, run: SyncRun) -> Pace:
    """What the binding's last acknowledged job took; the first one is looked at soon."""
    with hold.ctx.db.read() as session:
        took = batches.last_duration(session, run.binding_id)
    return Pace() if took is None else Pace(took)


def _target(cloud: MarketingCloud, run: SyncRun) -> Target:
    """Where the rows go, as the diff found it; found anew if the destination was changed since."""
    stored = run.binding.destination.data_extension
    if stored is not None:
        for name, kind in stored["fields"].items():
            if name.casefold() == run.binding.attribute_key:
                return Target(stored["id"], name, kind)
    extension, attribute = require_destination(cloud, run.binding, longest_key=0)
    return Target(extension.id, attribute.name, attribute.type)


def _others_wait(hold: ClaimedRun) -> bool:
    """Whether other work is queued for this slot."""
    try:
        return bool(hold.ctx.redis.llen(KEY_PREFIX + QUEUE))
    except RedisError:
        return True
