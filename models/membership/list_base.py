"""A new beginning for a list: a download that takes the place of all that was told before it, or a new sync.

A download says who was in the cohort at the moment of the request. What was received before it, or computed before it,
adds nothing, and goes. Clocks of Amplitude and of this host may differ by SKEW: a message that comes after the request
and was computed no longer before it is applied, because to lose a change would be worse than to apply it twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from models import audit
from models.errors import ConfigurationError
from models.membership import cohort_lists, generations, list_facts, list_trust, webhooks
from models.membership.computed_time import SKEW, computed_time, instant_of
from models.membership.generations import Ahead
from models.tables import (
    CohortBinding,
    CohortList,
    Snapshot,
    SyncRun,
    WebhookMessage,
)


def list_to_base(session: Session, binding: CohortBinding, *, now: datetime) -> int:
    """The id of the binding's list, made as by its first message if there is none."""
    found = cohort_lists.of_binding(session, binding)
    if found is None:
        webhooks.make_missing(session, binding.project_id, binding.cohort_id, now=now)
        found = cohort_lists.of_binding(session, binding)
    if found is None:
        raise ConfigurationError("WEBHOOK_LIST_GONE", cohort=binding.cohort_id)
    return found.id


def rebase(
    session: Session,
    run: SyncRun,
    download: Snapshot,
    ahead: Ahead,
    rest: Iterable[tuple[int, bytes]],
    *,
    people: int,
    now: datetime,
) -> int | None:
    """Make the download the base of the binding's list, and the list the run's snapshot; its id.

    Its (rows, keys) parts are stored ahead, but for the `rest`; of its `people` who is in none of them is blank. None
    if the parts can't count any more. Done once for each download: whoever comes later with the same one, or with an
    older one, finds it done.
    """
    binding = run.binding
    webhooks.hold_cohort(session, binding.project_id, binding.cohort_id)
    found = cohort_lists.of_binding(session, binding)
    if found is None:
        return None
    session.refresh(found, with_for_update={"key_share": True})
    based_at = computed_time(download.requested_at.replace(microsecond=0) - SKEW)
    facts = list_facts.facts(session, found)
    facts.carried.update(found.doubts)
    verdict = list_trust.judge(facts, now=now, ended_after=cohort_lists.ENDED_AFTER)
    if (found.base_snapshot_id or 0) < download.id:
        counting = generations.complete(session, generations.of_list(found.id), ahead, rest)
        if counting is None:
            return None
        found.anchored = webhooks.begun(session, found) and list_trust.anchors(facts, verdict)
        found.anchored_after = max(
            [found.anchored_after or 0, *(one.computed_time for one in facts.messages)]
        )
        list_facts.keep(found, verdict)  # what messages tell of the cadence
        found.generation, found.members = counting.generation, counting.members
        found.blank = people - counting.members
        # At least as new as a sync that began the list a moment ago.
        _begin_at(session, found, max(found.based_at or 0, based_at), received=download.requested_at)
        found.complete, found.base_snapshot_id = True, download.id
        found.proven_at, found.doubts, found.refuse_before = None, {}, None
        if found.sync_failed_at is not None and found.sync_failed_at <= download.requested_at + SKEW:
            found.overtaken_failure_at = found.sync_failed_at
        found.judged_id = session.scalar(select(func.max(WebhookMessage.id))) or 0
        session.flush()
    download.upto = found.judged_id  # it is used up: no other run may take it for a plan's
    cohort_lists.take(session, run, found, now=now)
    return found.id


def begin_with(session: Session, found: CohortList, time: int, *, now: datetime) -> None:
    """Let the list begin with the sync of that computed_time, which told the whole cohort: what was before goes."""
    webhooks.hold_messages(session, found)
    session.refresh(found, with_for_update={"key_share": True})
    list_facts.keep(
        found,
        list_trust.judge(list_facts.facts(session, found), now=now, ended_after=cohort_lists.ENDED_AFTER),
    )
    found.generation = generations.free_number(session, generations.of_list(found.id), found.generation)
    found.members = found.blank = 0
    _begin_at(session, found, time)
    found.complete, found.proven_at = True, time
    # It may have told the whole cohort and have failed all the same: in what it had to say of those who left.
    found.anchored = found.sync_failed_at is None or found.sync_failed_at < instant_of(time)
    found.anchored_after = time
    found.doubts, found.forgotten_through = {}, None
    session.flush()


def _begin_at(session: Session, found: CohortList, time: int, *, received: datetime | None = None) -> None:
    """Forget the messages that the new base knows of. What stays is applied on top of it, in its order.

    They are those that were computed before `time`, which `cohort_lists.drop_replaced` removes, and those that were
    `received` before.
    """
    before = _count(session, found)
    found.based_at = time
    mine = webhooks.standing(found)
    if received is not None:
        known = delete(WebhookMessage).where(mine, WebhookMessage.received_at < received)
        session.execute(known.execution_options(synchronize_session=False))
    again = update(WebhookMessage).where(mine, WebhookMessage.folded.is_(True)).values(folded=False)
    session.execute(again.execution_options(synchronize_session=False))
    found.forgotten += before - _count(session, found)


def _count(session: Session, found: CohortList) -> int:
    return session.scalar(select(func.count()).where(webhooks.standing(found))) or 0


def begin_anew(session: Session, binding: CohortBinding, *, now: datetime, actor: str) -> CohortList:
    """Forget the list, for a sync that is made anew from now on; what was computed before is refused."""
    webhooks.hold_cohort(session, binding.project_id, binding.cohort_id)
    lists = session.scalars(
        select(CohortList).where(
            CohortList.project_id == binding.project_id, CohortList.cohort_id == binding.cohort_id
        )
    ).all()
    for one in lists:
        session.delete(one)
    session.flush()
    webhooks.await_new_sync(session, binding.project_id, binding.cohort_id, now=now)
    audit.record(
        session,
        now=now,
        actor=actor,
        action="forget list",
        kind="binding",
        name=binding.name,
        lists=len(lists),
    )
    found = cohort_lists.of_binding(session, binding)
    assert found is not None  # noqa: S101 - made a line before, for every binding of the cohort
    return found
