"""One claim of one run: take it, renew its lease, do a stage, and turn any failure into the run's next state.

The claim is a compare-and-set, so a message that comes twice does nothing; every commit is fenced, so a
worker that was frozen past its lease changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from billiard.exceptions import SoftTimeLimitExceeded
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from config.queue import nudge, publish
from config.queue_names import KEY_PREFIX, QUEUES, QueueUnavailableError
from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.disk_errors import disk_full
from models.errors import (
    Cancelled,
    HeldForApproval,
    LeaseLost,
    RateLimited,
    SyncError,
    TerminalError,
    TransientError,
    WrongSecretKeyError,
)
from models.private_files import temporary_dir
from models.runs import batches, claims, completion, lifecycle, slots, stage_progress
from models.runs.claims import Claim, fenced
from models.runs.slots import SlotRules, Woken
from models.runs.stage_progress import StageProgress
from models.tables import AmplitudeProject, Destination, SyncRun
from models.types import RunState, Stage
from worker.context import Context
from worker.outcome import Outcome, describe
from worker.vendors.amplitude.client import Amplitude
from worker.vendors.backoff import retry_delay
from worker.vendors.marketing_cloud.client import MarketingCloud

log = structlog.get_logger()

KEY_WAIT_SECONDS = 60.0
# So short a part of a lease after it was renewed nobody can have taken the run over.
JUST_NOW = 1 / 60


@dataclass
class ClaimedRun:
    """A claimed run in a worker's hands."""

    ctx: Context
    claim: Claim
    binding: str | None = None  # its name, once loaded
    _amplitude: list[Amplitude] = field(default_factory=list)
    _marketing_cloud: list[MarketingCloud] = field(default_factory=list)
    _fenced_at: datetime | None = None  # when the last fenced transaction that was committed began

    @contextmanager
    def amplitude(self, source: AmplitudeProject) -> Iterator[Amplitude]:
        """A client whose requests are booked on the run with its next transaction."""
        with closing(Amplitude(self.ctx, source)) as client:
            self._amplitude.append(client)
            yield client

    @contextmanager
    def marketing_cloud(self, destination: Destination) -> Iterator[MarketingCloud]:
        """A client whose requests are booked on the run with its next transaction."""
        with closing(MarketingCloud(self.ctx, destination)) as client:
            self._marketing_cloud.append(client)
            yield client

    @property
    def now(self) -> datetime:
        """The clock."""
        return self.ctx.clock()

    def later(self, seconds: float) -> datetime:
        """The instant that many seconds from now."""
        return self.now + timedelta(seconds=seconds)

    @property
    def quiet_until(self) -> datetime:
        """Until when a submission without an answer may still be carried out."""
        return self.later(self.ctx.settings.uncertain_seconds)

    @property
    def slot_rules(self) -> SlotRules:
        """What counts as a job in flight."""
        return SlotRules.of(self.ctx.settings)

    def publish_woken(self, woken: Iterable[Woken]) -> None:
        """Send the messages of runs that were given a slot; where the queue is away, a scheduler does."""
        try:
            for one in woken:
                publish(self.ctx.app, one.run_id, Stage.PUSH, binding=one.binding)
        except QueueUnavailableError:
            log.warning("publish_failed", next=Stage.PUSH)

    def others_wait(self) -> bool:
        """Whether other work is queued for this worker."""
        try:
            return any(self.ctx.redis.llen(KEY_PREFIX + queue) for queue in QUEUES)
        except RedisError:
            return True

    def tell(self, progress: StageProgress) -> None:
        """How far this claim is, for who watches: once a second is enough."""
        stage_progress.tell(self.ctx.redis, self.claim.run_id, self.claim.fence, progress)

    def require_lease(self) -> None:
        """LeaseLost if this worker was away for so long that another may have the run.

        Where a commit has just told, the database is not asked again.
        """
        short = timedelta(seconds=self.ctx.settings.lease_seconds * JUST_NOW)
        if self._fenced_at is not None and timedelta() <= self.now - self._fenced_at < short:
            return
        if not claims.still_held(self.ctx.db, self.claim, now=self.now):
            raise LeaseLost(self.claim.run_id)

    @contextmanager
    def transaction(self) -> Iterator[tuple[Session, SyncRun]]:
        """A fenced transaction: (session, run). Books the requests made since the last one."""
        now = self.now
        with fenced(
            self.ctx.db,
            self.claim,
            now=now,
            lease=self.ctx.settings.lease_seconds,
            amplitude=sum(client.take_count() for client in self._amplitude),
            marketing_cloud=sum(client.take_count() for client in self._marketing_cloud),
        ) as found:
            yield found
        self._fenced_at = now

    def workdir(self, name: str) -> AbstractContextManager[Path]:
        """A directory for temporary files, gone afterwards."""
        return temporary_dir(self.ctx.settings.data_dir, name)

    def forgotten(self) -> Forgotten:
        """Who must not be stored."""
        with self.ctx.db.read() as session:
            return forgotten.load(session, self.ctx.db.keyring)

    def load(self) -> SyncRun:
        """The run as it stands, with its binding, source and destination."""
        with self.ctx.db.read() as session:
            run = session.get_one(SyncRun, self.claim.run_id)
            session.expunge_all()
            self.binding = run.binding.name
            return run


StageFunction = Callable[[ClaimedRun], Stage | None]


def work(
    ctx: Context, run_id: int, stage: Stage, function: StageFunction, *, worker: str | None = None
) -> Outcome:
    """Do `stage` of the run if it can be claimed, else nothing: what became of it in words."""
    claim = claims.claim(
        ctx.db, run_id, stage, now=ctx.clock(), lease=ctx.settings.lease_seconds, worker=worker
    )
    if claim is None:
        log.debug("not_claimed", run=run_id, stage=stage)
        return Outcome(f"run {run_id}: nothing to do, another worker has it or it is not at {stage}")
    claimed = ClaimedRun(ctx, claim)
    structlog.contextvars.bind_contextvars(run=run_id, stage=stage, fence=claim.fence)
    try:
        with Heartbeat(ctx, claim):
            following = _attempt(claimed, function)
        if following is not None:
            publish(ctx.app, run_id, following, binding=claimed.binding)
    except LeaseLost:
        log.warning("lease_lost")
        return Outcome(f"run {run_id}: the lease was lost, another worker has it")
    except QueueUnavailableError:
        log.warning("publish_failed", next=following)  # the scheduler publishes it
    found = describe(ctx.db, claim, stage, following, claimed.binding)
    soon = ctx.clock() + timedelta(seconds=ctx.settings.tick_seconds)
    if found.wake_at is not None and found.wake_at < soon:
        nudge(ctx.redis)
    return found


def _attempt(claimed: ClaimedRun, function: StageFunction) -> Stage | None:
    try:
        run = claimed.load()
        if claimed.claim.lost:
            log.warning("worker_lost", attempt=claimed.claim.attempt)
            if claimed.claim.attempt >= claimed.ctx.settings.max_attempts:
                apply_error(claimed, TerminalError("WORKER_LOST", times=claimed.claim.attempt))
                return None
        if run.cancel_requested and run.stage not in {Stage.PUSH, Stage.FINISH}:
            apply_error(claimed, Cancelled("CANCELLED", binding=run.binding.name))
            return None
        return function(claimed)
    except LeaseLost:
        raise
    except SyncError as error:
        apply_error(claimed, error)
    except SoftTimeLimitExceeded:
        apply_error(claimed, TransientError("INTERNAL", kind="time limit"))
    except SQLAlchemyError as error:
        log.exception("database_failed", kind=type(error).__name__)
        apply_error(claimed, TransientError("INTERNAL", kind=type(error).__name__))
    except Exception as error:  # a bug of ours must end as a run's error, never as a silent task
        if (full := disk_full(error, claimed.ctx.settings.data_dir)) is not None:
            apply_error(claimed, full)
            return None
        log.exception("stage_crashed", kind=type(error).__name__)
        apply_error(claimed, TransientError("INTERNAL", kind=type(error).__name__))
    return None


def apply_error(claimed: ClaimedRun, error: SyncError) -> None:
    """What the error means for the run: wait, hold, or end."""
    ctx = claimed.ctx
    with claimed.transaction() as (session, run):
        # What was being sent when the error came has an unknown outcome, also if the run ends here.
        batches.send_again_unheard(session, run.id, quiet_until=claimed.quiet_until)
        lifecycle.note_error(run, error)
        match error:
            case RateLimited():
                lifecycle.wait(
                    run,
                    claimed.later(error.retry_after + ctx.rng.uniform(0, 0.25)),
                    slot_wanted=batches.slot_wanted(session, run, now=claimed.now),
                )
            case WrongSecretKeyError():
                # Of this process, not of the run: one with the right key, or this one started again, carries it on.
                lifecycle.wait(run, claimed.later(KEY_WAIT_SECONDS))
            case HeldForApproval():
                lifecycle.hold(run, error, until=claimed.now + timedelta(days=ctx.settings.held_days))
            case Cancelled():
                lifecycle.finish(session, run, RunState.CANCELLED, now=claimed.now)
            case TerminalError() if completion.spared(run, error):
                lifecycle.finish(session, run, RunState.SKIPPED, now=claimed.now)
            case TerminalError():
                _fail(claimed, session, run, error)
            case _:
                run.attempt += 1
                if run.attempt >= ctx.settings.max_attempts:
                    _fail(claimed, session, run, error)
                else:
                    lifecycle.wait(run, claimed.later(backoff(ctx, run.attempt)))
        outcome, wake_at, attempt = run.state, run.wake_at, run.attempt
        woken = slots.wake_after(session, run, claimed.slot_rules, now=claimed.now)
    claimed.publish_woken(woken)
    log.warning(
        "stage_stopped",
        code=error.code,
        detail=error.detail,
        state=outcome,
        attempt=attempt,
        wake_at=wake_at.isoformat() if wake_at else None,
    )


def _fail(claimed: ClaimedRun, session: Session, run: SyncRun, error: SyncError) -> None:
    """The run ends here; another may follow by itself, or the binding pauses."""
    settings = claimed.ctx.settings
    lifecycle.finish(session, run, RunState.FAILED, now=claimed.now)
    completion.after_failure(
        session,
        run,
        error,
        completion.Policy(settings.retry_runs, settings.pause_after_failures),
        delay=retry_delay(
            run.retry + 1, settings.retry_run_base_seconds, settings.retry_run_max_seconds, claimed.ctx.rng
        ),
        now=claimed.now,
    )


def backoff(ctx: Context, attempt: int) -> float:
    """Seconds before the next attempt of a run."""
    return retry_delay(attempt, ctx.settings.retry_base_seconds, ctx.settings.retry_max_seconds, ctx.rng)


class Heartbeat:
    """Renews the lease from a thread: a download or a diff takes longer than one."""

    def __init__(self, ctx: Context, claim: Claim) -> None:
        self._ctx, self._claim = ctx, claim
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        settings = self._ctx.settings
        while not self._stop.wait(settings.lease_seconds / 3):
            try:
                claims.renew(self._ctx.db, self._claim, now=self._ctx.clock(), lease=settings.lease_seconds)
            except LeaseLost:
                return  # ended, or another's: the next fenced commit tells which
            except (SyncError, SQLAlchemyError) as error:
                log.warning("lease_not_renewed", kind=type(error).__name__)
