"""What `list_trust` judges a list by, read from its rows; and the keys of two syncs, to be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.membership import list_trust, webhooks
from models.membership.computed_time import computed_time, instant_of
from models.membership.list_trust import Doubts, ListFacts, MessageFacts, Size, Verdict
from models.tables import CohortList, WebhookMessage, WebhookRefusal

# A refusal that is wanted: of a sync that was begun before its list was forgotten.
FORGOTTEN = "WEBHOOK_FORGOTTEN"
# Two thousand messages and the retries of each, at most.
SYNC_TAKES = timedelta(minutes=30)


def facts(
    session: Session, found: CohortList, *, people: int | None = None, upto: int | None = None
) -> ListFacts:
    """The list with the messages up to the id `upto`; `people` on it, if they were just counted."""
    size = None if found.size is None else Size(found.size, found.size_computed_at)
    return ListFacts(
        complete=found.complete,
        based_at=found.based_at,
        anchored=found.anchored,
        anchored_after=found.anchored_after,
        proven_at=found.proven_at,
        beginning_gone=found.forgotten_through is not None,
        messages=_messages(session, found, upto),
        refused=_refused(session, found),
        size=size,
        people=people,
        failed_at=_failed(found),
        heard_at=found.heard_at,
        pause=None if found.pause_seconds is None else timedelta(seconds=found.pause_seconds),
        carried=list_trust.lasting(found.doubts),
    )


def note_ends(
    session: Session, found: CohortList, *, failed: datetime | None, succeeded: datetime | None
) -> None:
    """Store when Amplitude's last sync failed, if it is the last one that ended, and what else both times show.

    A sync that failed after something was heard of it leaves the list wrong, though another has succeeded since. One
    that succeeded after a download which could not be added to may have had nothing to say.
    """
    since = max(found.created_at, instant_of(found.based_at or 0))
    seen: Doubts = {}
    if failed is not None and failed >= since and _heard_before(session, found, failed):
        seen[list_trust.FAILED] = {"at": list_trust.at(failed)}
    if failed is not None and succeeded is not None and succeeded >= failed:
        failed = None
    if failed is None and succeeded is not None and succeeded > since and not found.anchored:
        seen[list_trust.UNANCHORED] = {"at": list_trust.at(succeeded)}
    found.sync_failed_at = failed
    found.doubts = {**found.doubts, **{code: {**facts, "lasting": True} for code, facts in seen.items()}}


def _heard_before(session: Session, found: CohortList, failed: datetime) -> bool:
    """Whether a message came that may be of the sync that failed then: of none that is known to have been whole."""
    begun = max(computed_time(failed - SYNC_TAKES), (found.proven_at or 0) + 1)
    heard = select(WebhookMessage.id).where(
        webhooks.standing(found), WebhookMessage.computed_time.between(begun, computed_time(failed))
    )
    return session.scalar(heard.limit(1)) is not None


def _failed(found: CohortList) -> datetime | None:
    """When the last sync failed, unless the list, or its base, is newer than that."""
    failed, overtaken = found.sync_failed_at, found.overtaken_failure_at
    if failed is None or (overtaken is not None and failed <= overtaken):
        return None
    return failed if failed >= max(found.created_at, instant_of(found.based_at or 0)) else None


def judged(session: Session, found: CohortList, *, now: datetime, ended_after: timedelta) -> Verdict:
    """What is known of the list at this moment without a look at its members.

    A difference of size is what the last run found: only a run counts.
    """
    verdict = list_trust.judge(facts(session, found), now=now, ended_after=ended_after)
    counted = {code: found.doubts[code] for code in (list_trust.SIZE,) if code in found.doubts}
    unproven = found.doubts.get(list_trust.UNPROVEN)
    if unproven is not None and list_trust.UNPROVEN in verdict.doubts:
        counted[list_trust.UNPROVEN] = unproven
    return replace(verdict, doubts={**verdict.doubts, **counted})


def keep(found: CohortList, verdict: Verdict) -> None:
    """Store what the look found, for those that follow."""
    found.doubts, found.proven_at, found.heard_at = verdict.doubts, verdict.proven_at, verdict.heard_at
    if verdict.pause is not None:
        found.pause_seconds = round(verdict.pause.total_seconds())


def new_times(session: Session, found: CohortList, upto: int) -> list[int]:
    """The computed_times of messages that nobody has compared with their neighbours yet."""
    times = (
        select(WebhookMessage.computed_time)
        .where(
            webhooks.standing(found),
            WebhookMessage.id > found.judged_id,
            WebhookMessage.id <= upto,
        )
        .distinct()
    )
    return sorted(session.scalars(times))


def times_of(session: Session, found: CohortList, upto: int) -> list[int]:
    """Every computed_time whose messages are kept, in order."""
    times = (
        select(WebhookMessage.computed_time)
        .where(webhooks.standing(found), WebhookMessage.id <= upto)
        .distinct()
    )
    return sorted(session.scalars(times))


def people_told(session: Session, list_id: int, time: int, *, entered: bool) -> int:
    """How many keys the messages of that computed_time and direction have."""
    told = select(func.coalesce(func.sum(WebhookMessage.n), 0)).where(
        WebhookMessage.list_id == list_id,
        WebhookMessage.computed_time == time,
        WebhookMessage.in_cohort.is_(entered),
    )
    return int(session.scalar(told) or 0)


def last_heard(session: Session, list_id: int) -> datetime | None:
    """When the last message came that is kept."""
    return session.scalar(
        select(func.max(WebhookMessage.received_at)).where(WebhookMessage.list_id == list_id)
    )


def keys_of(session: Session, list_id: int, time: int, *, entered: bool) -> Iterator[bytes]:
    """The keys of that computed_time and direction, message by message."""
    yield from session.scalars(
        select(WebhookMessage.keys)
        .where(
            WebhookMessage.list_id == list_id,
            WebhookMessage.computed_time == time,
            WebhookMessage.in_cohort.is_(entered),
            WebhookMessage.n > 0,
        )
        .execution_options(yield_per=20)
    )


def series_at(session: Session, list_id: int, time: int, *, entered: bool) -> set[str | None]:
    """The syncs that the ids of that computed_time and direction name."""
    ids = session.scalars(
        select(WebhookMessage.message_id).where(
            WebhookMessage.list_id == list_id,
            WebhookMessage.computed_time == time,
            WebhookMessage.in_cohort.is_(entered),
        )
    )
    return {list_trust.series_of(name) for name in ids}


def _messages(session: Session, found: CohortList, upto: int | None) -> list[MessageFacts]:
    wanted = webhooks.standing(found)
    if upto is not None:
        wanted &= WebhookMessage.id <= upto
    rows = session.execute(
        select(
            WebhookMessage.computed_time,
            WebhookMessage.message_id,
            WebhookMessage.in_cohort,
            WebhookMessage.n + WebhookMessage.blank,
            WebhookMessage.received_at,
        ).where(wanted)
    )
    return [MessageFacts(*row) for row in rows]


def _refused(session: Session, found: CohortList) -> list[tuple[str, datetime]]:
    """Messages that were refused and have not been stored since."""
    stored = (
        select(WebhookMessage.id)
        .where(WebhookMessage.list_id == found.id, WebhookMessage.message_id == WebhookRefusal.message_id)
        .exists()
    )
    since = instant_of(found.based_at or 0)
    rows = session.execute(
        select(WebhookRefusal.code, WebhookRefusal.last_at)
        .where(
            WebhookRefusal.project_id == found.project_id,
            WebhookRefusal.cohort_id == found.cohort_id,
            WebhookRefusal.message_id != "",
            WebhookRefusal.code != FORGOTTEN,
            WebhookRefusal.last_at >= max(since, found.created_at),
            ~stored,
        )
        .order_by(WebhookRefusal.id)
    )
    return [(code, at) for code, at in rows]
