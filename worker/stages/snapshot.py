"""Stage 1: a membership snapshot, shared, newly requested, uploaded, or told by webhook; polled until it is ready.

The request that costs a download is journalled before it is made and never repeated: if its answer is lost
the run ends, and says so.
"""

from __future__ import annotations

from datetime import datetime

from models.errors import ConfigurationError, RateLimited, SyncError, TerminalError
from models.membership import cohort_lists, snapshots
from models.membership.cohort_lists import IncompleteListError
from models.runs import lifecycle
from models.tables import Snapshot, SyncRun
from models.types import Feed, SnapshotKind, SnapshotState, Stage
from worker.claim import ClaimedRun
from worker.stages import blackout, webhook_trust
from worker.vendors.amplitude.client import Amplitude, CohortTooLargeError
from worker.vendors.http import AnswerLostError
from worker.vendors.rate_limits import AMPLITUDE_PARALLEL_JOBS

# Jobs take 0.3 s in the best case, "commonly 30-60+ s regardless of size" (a peer's note on the live API).
POLL_SECONDS = (0.5, 1.0, 2.0, 3.0, 5.0)
LATER_POLL_SECONDS = 10.0
BUSY_SECONDS = 1.0


def snapshot(hold: ClaimedRun) -> Stage | None:
    """Bring the run a completed snapshot."""
    run = hold.load()
    if run.snapshot is None and run.binding.blackouts and blackout.stops(hold):
        return None  # members as they are when the push may begin
    try:
        return bring(hold)
    except IncompleteListError:
        # Where nothing was flagged yet nobody is wrong: whoever set it up hears of it at once.
        if run.binding.attribute_locked_at is None:
            raise
        if not webhook_trust.heal(hold, None):
            raise
        return Stage.SNAPSHOT


def bring(hold: ClaimedRun) -> Stage | None:
    """The same whatever the time of day."""
    run = hold.load()
    if run.binding.feed == Feed.WEBHOOK:
        if run.snapshot is None and run.reconcile is None:
            return _told(hold)
        if run.snapshot is not None and run.snapshot.kind == SnapshotKind.UPLOAD:
            raise ConfigurationError("WEBHOOK_FED", binding=run.binding.name)
    if run.snapshot is not None and run.snapshot.state == SnapshotState.COMPLETED:
        return _on(hold)
    with hold.amplitude(run.binding.project) as amplitude:
        found = run.snapshot or _begin(hold, run.binding.cohort_id, amplitude)
        if found is None:
            return None
        if found.state == SnapshotState.REQUESTING:  # its worker died between journal and answer
            raise TerminalError("SNAPSHOT_REQUEST_LOST")
        if found.state == SnapshotState.REQUESTED:
            return _poll(hold, amplitude, found)
        if found.state == SnapshotState.FAILED:  # the run that it is shared with gave it up
            raise _overdue(hold)
        return _on(hold)


def _told(hold: ClaimedRun) -> Stage | None:
    """What the webhook delivered until now: no request is made and no download spent."""
    with hold.transaction() as (session, run):
        found = cohort_lists.begin(session, run, now=hold.now)
        lifecycle.note_error(run, None)
        if isinstance(found, datetime):  # the first sync of the cohort is still coming in
            lifecycle.wait(run, found)
            return None
        lifecycle.advance(run, Stage.DIFF, now=hold.now)
    return Stage.DIFF


def _begin(hold: ClaimedRun, cohort_id: str, amplitude: Amplitude) -> Snapshot | None:
    """A shared snapshot or a new request; none where the run has to wait."""
    _require(hold.load(), cohort_id, amplitude)
    with hold.transaction() as (session, run):
        found = snapshots.join_or_begin(
            session,
            run,
            now=hold.now,
            fresh=snapshots.FreshnessPolicy.of(hold.ctx.settings),
            parallel=AMPLITUDE_PARALLEL_JOBS,
        )
        if found is None:
            lifecycle.wait(run, hold.later(BUSY_SECONDS))
            return None
    if found.state != SnapshotState.REQUESTING:
        return found
    try:
        request_id = amplitude.request(found.cohort_id, found.property)
    except AnswerLostError as error:
        raise TerminalError("SNAPSHOT_REQUEST_LOST", error.detail) from error
    except SyncError:
        with hold.transaction() as (session, run):  # refused or never sent: it has cost nothing
            session.get_one(Snapshot, found.id).state = SnapshotState.FAILED
            run.snapshot_id = None
        raise
    with hold.transaction() as (session, _):
        stored: Snapshot = session.get_one(Snapshot, found.id)
        stored.request_id, stored.state = request_id, SnapshotState.REQUESTED
    return stored


def _require(run: SyncRun, cohort_id: str, amplitude: Amplitude) -> None:
    try:
        amplitude.require(cohort_id)
    except CohortTooLargeError as error:
        if run.reconcile is None:
            raise
        raise ConfigurationError(
            "RECONCILE_TOO_LARGE", binding=run.binding.name, cohort=cohort_id, size=error.context["size"]
        ) from None


def _poll(hold: ClaimedRun, amplitude: Amplitude, found: Snapshot) -> Stage | None:
    if found.request_id is None:
        raise TerminalError("SNAPSHOT_REQUEST_LOST")
    age = (hold.now - found.requested_at).total_seconds()
    overdue = age > hold.ctx.settings.snapshot_deadline_seconds
    try:
        completed = amplitude.completed(found.request_id)
    except RateLimited:
        if not overdue:
            raise
        completed = False  # the deadline counts also while nobody may ask
    if not completed:
        if overdue:
            with hold.transaction() as (session, run):
                session.get_one(Snapshot, found.id).state = SnapshotState.FAILED
            raise _overdue(hold)
        with hold.transaction() as (session, run):
            lifecycle.wait(run, hold.later(_pause(age)))
        return None
    with hold.transaction() as (session, run):
        stored = session.get_one(Snapshot, found.id)
        stored.state, stored.completed_at = SnapshotState.COMPLETED, hold.now
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.DIFF, now=hold.now)
    return Stage.DIFF


def _overdue(hold: ClaimedRun) -> TerminalError:
    minutes = round(hold.ctx.settings.snapshot_deadline_seconds / 60)
    return TerminalError("SNAPSHOT_DEADLINE", minutes=minutes)


def _on(hold: ClaimedRun) -> Stage:
    with hold.transaction() as (_, run):
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.DIFF, now=hold.now)
    return Stage.DIFF


def _pause(age: float) -> float:
    """Seconds to the next poll of a job that old: short at first, then ten."""
    passed = 0.0
    for seconds in POLL_SECONDS:
        if age <= passed + seconds:
            return seconds
        passed += seconds
    return LATER_POLL_SECONDS
