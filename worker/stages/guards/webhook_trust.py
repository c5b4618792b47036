"""Where the stages ask whether a webhook's list can be trusted, and what they do if it can't.

A list in doubt gets a download as its base, by itself within a budget. Until it has one, a run that would remove
members by it is held, whatever its trigger: to flag somebody too long is mended later, to unflag a true member is not
seen by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import structlog
from sqlalchemy.orm import Session

from models import vendor_text
from models.contact_keys.codec import decode
from models.contact_keys.key_array import U64
from models.errors import HeldForApproval, SyncError, TerminalError
from models.membership import cohort_lists, list_base, list_facts, list_trust
from models.membership.computed_time import instant_of
from models.membership.list_trust import ONE_SECOND, REPEATED, Doubts, Verdict
from models.runs import lifecycle, reconciling
from models.tables import CohortBinding, CohortList, SyncRun
from models.types import Feed, Reconcile, SnapshotKind, Stage
from models.wording import plural
from worker.claim import ClaimedRun
from worker.membership.fingerprint import Fingerprints
from worker.vendors.amplitude.client import COHORT_MAX_MEMBERS, Amplitude
from worker.vendors.amplitude.responses import Cohort

log = structlog.get_logger()

ASK_EVERY = timedelta(minutes=5)


def weigh(claimed: ClaimedRun, run: SyncRun, people: int) -> Verdict | None:
    """What is to be doubted of the run's list of so many people, stored with it; none if it has no list."""
    if run.snapshot is None or run.snapshot.kind != SnapshotKind.WEBHOOK or run.snapshot.upto is None:
        return None
    upto = run.snapshot.upto
    with claimed.ctx.db.read() as session:
        found = cohort_lists.of_binding(session, run.binding)
    if found is None:
        return None
    ask(claimed, run.binding)
    with claimed.ctx.db.read() as session:
        repeated = _repeated(session, found, upto, Fingerprints(claimed.ctx.rng.getrandbits(63)))
    with claimed.transaction() as (session, _):
        stored = session.get(CohortList, found.id)
        if stored is None or stored.generation != found.generation:
            return None  # another run's base is newer than what this one has compared with
        facts = list_facts.facts(session, stored, people=people, upto=upto)
        facts.carried.update(repeated)
        verdict = list_trust.judge(facts, now=claimed.now, ended_after=cohort_lists.ENDED_AFTER)
        list_facts.keep(stored, verdict)
        stored.judged_id = max(stored.judged_id, upto)
        whole = list_trust.whole_sync(facts)
    if verdict.doubts:
        log.warning("list_in_doubt", codes=sorted(verdict.doubts))
    return replace(verdict, whole=whole)


def objection(
    binding: CohortBinding, verdict: Verdict | None, removed: int, run: int | str
) -> HeldForApproval | None:
    """Why a run that removes so many contacts would be held, if it would."""
    if verdict is None or not removed or not verdict.standing:
        return None
    code = verdict.standing[0]
    facts = {name: fact for name, fact in verdict.doubts[code].items() if name != "lasting"}
    return HeldForApproval(
        code,
        f"Run {run} would remove {plural(removed, 'member')} by this list.",
        binding=binding.name,
        cohort=binding.cohort_id,
        **facts,
    )


def heals(claimed: ClaimedRun, run: SyncRun, verdict: Verdict | None) -> bool:
    """Whether the run goes back to its beginning, for the list gets a new one."""
    if verdict is None or run.approved:
        return False
    if verdict.whole is not None:
        _begin_with(claimed, verdict.whole)
        return True
    return run.reconcile is None and heal(claimed, verdict)


def _begin_with(claimed: ClaimedRun, time: int) -> None:
    with claimed.transaction() as (session, run):
        found = cohort_lists.of_binding(session, run.binding)
        if found is not None:
            list_base.begin_with(session, found, time, now=claimed.now)
        reconciling.forget_comparison(run)
        lifecycle.advance(run, Stage.SNAPSHOT, now=claimed.now)
    if found is not None:
        cohort_lists.drop_replaced(claimed, found.id, claimed.claim.run_id)
    log.info("list_begins_anew", computed=list_trust.shown(time))


def heal(claimed: ClaimedRun, verdict: Verdict | None) -> bool:
    """Send the run back for a download that becomes the list's base, if there is reason and budget for one.

    Without a verdict the list began with changes.
    """
    with claimed.transaction() as (session, run):
        found = cohort_lists.of_binding(session, run.binding)
        if run.binding.feed != Feed.WEBHOOK or run.reconcile is not None or run.approved or found is None:
            return False
        reason = verdict.standing if verdict is not None else [list_trust.INCOMPLETE]
        if not reason and not _old(found, claimed.now, claimed.ctx.settings.reconcile_days):
            return False
        if found.size is not None and found.size > COHORT_MAX_MEMBERS:
            return False
        budget = claimed.ctx.settings.reconcile_downloads
        if not reconciling.within_budget(session, run.binding.project, budget=budget, now=claimed.now):
            return False
        run.reconcile = Reconcile.ITSELF
        reconciling.forget_comparison(run)
        lifecycle.advance(run, Stage.SNAPSHOT, now=claimed.now)
    log.info("list_reconciles_itself", reason=reason or ["its base is old"])
    return True


def _old(found: CohortList, now: datetime, days: float) -> bool:
    since = found.created_at
    if found.based_at is not None:
        since = max(since, instant_of(found.based_at))
    return days > 0 and since + timedelta(days=days) < now


def ask(claimed: ClaimedRun, binding: CohortBinding, *, anew: bool = False) -> None:
    """Store the cohort's size and how its last sync ended, asked a moment ago at most unless `anew`.

    The list of cohorts costs no download, and no run ends because it can't be had.
    """
    now = claimed.now
    with claimed.ctx.db.read() as session:
        found = cohort_lists.of_binding(session, binding)
    if found is None:
        return
    if not anew and found.size_asked_at is not None and found.size_asked_at > now - ASK_EVERY:
        with claimed.ctx.db.read() as session:
            heard = list_facts.last_heard(session, found.id)
        if heard is None or heard < found.size_asked_at:
            return
    try:
        with claimed.amplitude(binding.project) as amplitude:
            listed = next((one for one in _listed(amplitude) if one.id == binding.cohort_id), None)
    except SyncError as error:
        log.warning("size_unknown", code=error.code)
        return
    with claimed.transaction() as (session, run):
        if listed is not None:
            run.binding.cohort_name = vendor_text.name(listed.name)
        stored = session.get(CohortList, found.id)
        if stored is not None:
            stored.size = listed.size if listed is not None else None
            stored.size_computed_at = listed.last_computed if listed is not None else None
            stored.size_asked_at = now
            last = listed.webhook if listed is not None else None
            list_facts.note_ends(
                session,
                stored,
                failed=last.last_failure if last else None,
                succeeded=last.last_successful if last else None,
            )


def _listed(amplitude: Amplitude) -> list[Cohort]:
    """The list with what became of the syncs, or without where the account has no such thing."""
    try:
        return amplitude.cohorts(with_syncs=True)
    except TerminalError:
        return amplitude.cohorts()


def _repeated(session: Session, found: CohortList, upto: int, fingerprints: Fingerprints) -> Doubts:
    """What the keys of neighbouring syncs show: one that tells again what the one before it told."""
    new = list_facts.new_times(session, found, upto)
    times = list_facts.times_of(session, found, upto)
    doubts: Doubts = {}
    for before, time in pairwise(times):
        if (before in new or time in new) and any(
            _overlap(session, found.id, (before, entered), (time, entered), fingerprints)
            for entered in (True, False)
        ):
            doubts[REPEATED] = {"at": list_trust.shown(time), "lasting": True}
    for time in new:
        if _two_syncs(session, found.id, time) and _overlap(
            session, found.id, (time, True), (time, False), fingerprints
        ):
            doubts[ONE_SECOND] = {"at": list_trust.shown(time), "lasting": True}
    return doubts


def _two_syncs(session: Session, list_id: int, time: int) -> bool:
    entered = list_facts.series_at(session, list_id, time, entered=True)
    left = list_facts.series_at(session, list_id, time, entered=False)
    return bool(entered and left) and not entered & left


def _overlap(
    session: Session,
    list_id: int,
    one: tuple[int, bool],
    other: tuple[int, bool],
    fingerprints: Fingerprints,
) -> bool:
    """Whether both name somebody; the smaller one is kept in memory, the other one read message by message."""
    told = {side: list_facts.people_told(session, list_id, side[0], entered=side[1]) for side in (one, other)}
    small, large = sorted((one, other), key=lambda side: told[side])
    if not told[small]:
        return False
    kept = np.unique(np.concatenate(list(_numbers(_keys(session, list_id, small), fingerprints))))
    return any(
        bool(np.isin(numbers, kept).any())
        for numbers in _numbers(_keys(session, list_id, large), fingerprints)
    )


def _keys(session: Session, list_id: int, side: tuple[int, bool]) -> Iterable[bytes]:
    return list_facts.keys_of(session, list_id, side[0], entered=side[1])


def _numbers(blobs: Iterable[bytes], fingerprints: Fingerprints) -> Iterator[U64]:
    """64 bits a key: two million on either side meet by chance once in five million times."""
    for blob in blobs:
        yield fingerprints.mix(*fingerprints.of(decode(blob)))
