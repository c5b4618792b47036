"""Stage 1: a membership snapshot, shared, newly requested, uploaded, or told by webhook; polled until it is ready.

The request that costs a download is journalled before it is made and never repeated: if its answer is lost
the run ends, and says so.
"""

from __future__ import annotations

from datetime import datetime

from models import vendor_text
from models.errors import ConfigurationError, RateLimited, SyncError, TerminalError
from models.membership import cohort_lists, snapshots
from models.membership.cohort_lists import IncompleteListError
from models.runs import lifecycle
from models.tables import Snapshot, SyncRun
from models.types import Feed, SnapshotKind, SnapshotState, Stage
from worker.claim import ClaimedRun
from worker.stages import blackout
from worker.stages.guards import webhook_trust
from worker.vendors.amplitude.client import Amplitude, Cohort, CohortTooLargeError
from worker.vendors.http import AnswerLostError
from worker.vendors.rate_limits import AMPLITUDE_PARALLEL_JOBS

# Jobs take 0.3 s in the best case, "commonly 30-60+ s regardless of size" (a peer's note on the live API).
MIN_POLL_SECONDS = 0.25
MAX_POLL_SECONDS = 10.0
BUSY_SECONDS = 1.0


def snapshot(claimed: ClaimedRun) -> Stage | None:
    """Bring the run a completed snapshot."""
    run = claimed.load()
    if run.snapshot is None and run.binding.blackouts and blackout.stops(claimed):
        return None  # members as they are when the push may begin
    try:
        return bring(claimed)
    except IncompleteListError:
        # Where nothing was flagged yet nobody is wrong: whoever set it up hears of it at once.
        if run.binding.attribute_locked_at is None:
            raise
        if not webhook_trust.heal(claimed, None):
            raise
        return Stage.SNAPSHOT


def bring(claimed: ClaimedRun) -> Stage | None:
    """The same whatever the time of day."""
    run = claimed.load()
    if run.binding.feed == Feed.WEBHOOK:
        if run.snapshot is None and run.reconcile is None:
            return _told(claimed)
        if run.snapshot is not None and run.snapshot.kind == SnapshotKind.UPLOAD:
            raise ConfigurationError("WEBHOOK_FED", binding=run.binding.name)
    if run.snapshot is not None and run.snapshot.state == SnapshotState.COMPLETED:
        return _on(claimed)
    with claimed.amplitude(run.binding.project) as amplitude:
        found = run.snapshot or _begin(claimed, run.binding.cohort_id, amplitude)
        if found is None:
            return None
        if found.state == SnapshotState.REQUESTING:  # its worker died between journal and answer
            raise TerminalError("SNAPSHOT_REQUEST_LOST")
        if found.state == SnapshotState.REQUESTED:
            return _poll(claimed, amplitude, found)
        if found.state == SnapshotState.FAILED:  # the run that it is shared with gave it up
            raise _overdue(claimed)
        return _on(claimed)


def _told(claimed: ClaimedRun) -> Stage | None:
    """What the webhook delivered until now: no request is made and no download spent."""
    with claimed.transaction() as (session, run):
        found = cohort_lists.begin(session, run, now=claimed.now)
        lifecycle.note_error(run, None)
        if isinstance(found, datetime):  # the first sync of the cohort is still coming in
            lifecycle.wait(run, found)
            return None
        lifecycle.advance(run, Stage.DIFF, now=claimed.now)
    return Stage.DIFF


def _begin(claimed: ClaimedRun, cohort_id: str, amplitude: Amplitude) -> Snapshot | None:
    """A shared snapshot or a new request; none where the run has to wait."""
    listed = _require(claimed.load(), cohort_id, amplitude)
    with claimed.transaction() as (session, run):
        run.binding.cohort_name = vendor_text.name(listed.name)
        found = snapshots.join_or_begin(
            session,
            run,
            now=claimed.now,
            fresh=snapshots.FreshnessPolicy.of(claimed.ctx.settings),
            parallel=AMPLITUDE_PARALLEL_JOBS,
        )
        if found is None:
            lifecycle.wait(run, claimed.later(BUSY_SECONDS))
            return None
    if found.state != SnapshotState.REQUESTING:
        return found
    try:
        request_id = amplitude.request(found.cohort_id, found.property)
    except AnswerLostError as error:
        raise TerminalError("SNAPSHOT_REQUEST_LOST", error.detail) from error
    except SyncError:
        with claimed.transaction() as (session, run):  # refused or never sent: it has cost nothing
            session.get_one(Snapshot, found.id).state = SnapshotState.FAILED
            run.snapshot_id = None
        raise
    with claimed.transaction() as (session, _):
        stored: Snapshot = session.get_one(Snapshot, found.id)
        stored.request_id, stored.state = request_id, SnapshotState.REQUESTED
    return stored


def _require(run: SyncRun, cohort_id: str, amplitude: Amplitude) -> Cohort:
    try:
        return amplitude.require(cohort_id)
    except CohortTooLargeError as error:
        if run.reconcile is None:
            raise
        raise ConfigurationError(
            "RECONCILE_TOO_LARGE", binding=run.binding.name, cohort=cohort_id, size=error.context["size"]
        ) from None


def _poll(claimed: ClaimedRun, amplitude: Amplitude, found: Snapshot) -> Stage | None:
    if found.request_id is None:
        raise TerminalError("SNAPSHOT_REQUEST_LOST")
    age = (claimed.now - found.requested_at).total_seconds()
    overdue = age > claimed.ctx.settings.snapshot_deadline_seconds
    try:
        completed = amplitude.completed(found.request_id)
    except RateLimited:
        if not overdue:
            raise
        completed = False  # the deadline counts also while nobody may ask
    if not completed:
        if overdue:
            with claimed.transaction() as (session, run):
                session.get_one(Snapshot, found.id).state = SnapshotState.FAILED
            raise _overdue(claimed)
        with claimed.transaction() as (session, run):
            usual = snapshots.usual_seconds(session, found)
            lifecycle.wait(run, claimed.later(pause(age, usual)))
        return None
    with claimed.transaction() as (session, run):
        stored = session.get_one(Snapshot, found.id)
        stored.state, stored.completed_at = SnapshotState.COMPLETED, claimed.now
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.DIFF, now=claimed.now)
    return Stage.DIFF


def _overdue(claimed: ClaimedRun) -> TerminalError:
    minutes = round(claimed.ctx.settings.snapshot_deadline_seconds / 60)
    return TerminalError("SNAPSHOT_DEADLINE", minutes=minutes)


def _on(claimed: ClaimedRun) -> Stage:
    with claimed.transaction() as (_, run):
        lifecycle.note_error(run, None)
        lifecycle.advance(run, Stage.DIFF, now=claimed.now)
    return Stage.DIFF


def pause(age: float, usual: float) -> float:
    """Seconds to the next poll of a job that is `age` seconds old; `usual` is what such a job takes, 0 if unknown.

    The first poll is at three quarters of `usual`, the later ones are an eighth of the job's age apart: its end is
    seen at most an eighth late, or MIN_POLL_SECONDS, and never more than MAX_POLL_SECONDS.
    """
    return min(max(0.75 * usual - age, age / 8, MIN_POLL_SECONDS), MAX_POLL_SECONDS)
