"""A cohort's membership as the webhook told it: what a run reads, and how the list is kept short.

The members are the parts of the current generation with messages applied in the order of their `computed_time`;
of one time, those who left come before those who entered. A diff of one time names a person once, so two words
of one time on one key are two people who share it: somebody with that key is in the cohort, and that counts.

A folded message stays for KEEP. One that comes late, with an older time, is then put in its place by applying
everything from there on once more: for a member named in that stretch the last word counts as if nothing had
been folded, and for everybody else the parts are right already. So only a whole beginning of the order is ever
removed, and what is older than that is refused (`webhooks.accept`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from models.database import one_state
from models.database.steps import Steps, drop, step
from models.direction import Direction
from models.errors import ConfigurationError, TransientError
from models.membership import generations, list_facts, list_trust, webhooks
from models.membership.generations import Ahead, Counting
from models.tables import (
    CohortBinding,
    CohortList,
    CohortListPart,
    Destination,
    Snapshot,
    SyncRun,
    WebhookMessage,
)
from models.types import UNFINISHED_WORDS, RunState, SnapshotKind, SnapshotState, Stage, literal_word

# Amplitude repeats a message for about four minutes (8 retries, 1 s to 2 min, doubling), a failed sync with its
# next one, a day later at most.
KEEP = timedelta(days=7)
ENDED_AFTER = timedelta(minutes=5)
MESSAGES_AT_ONCE = 200  # 3 MB


@dataclass(frozen=True)
class ListView:
    """A list as one transaction sees it. `replayed` and `changes` say how much is read beside the parts."""

    list_id: int
    generation: int
    members: int
    blank: int
    unfolded: list[int]
    since: int | None  # computed_time from which messages are applied; none: the parts say it all
    upto: int
    replayed: int
    changes: int
    alone: bool  # no unfinished run needs an older state of the list


def begin(session: Session, run: SyncRun, *, now: datetime) -> Snapshot | datetime:
    """The run's snapshot: what has been told by now; or when to look again."""
    found = _ready(session, run.binding)
    wait = _settles(session, run.binding, found)
    if wait is not None and wait > now:
        return wait
    return take(session, run, found, now=now)


def take(session: Session, run: SyncRun, found: CohortList, *, now: datetime) -> Snapshot:
    """Give the run the list as it stands at this moment."""
    snapshot = Snapshot(
        project_id=found.project_id,
        cohort_id=found.cohort_id,
        kind=SnapshotKind.WEBHOOK,
        property=found.property,
        state=SnapshotState.COMPLETED,
        requested_at=now,
        completed_at=now,
        upto=session.scalar(select(func.max(WebhookMessage.id)).where(WebhookMessage.list_id == found.id))
        or 0,
    )
    session.add(snapshot)
    session.flush()
    run.snapshot_id = snapshot.id
    return snapshot


def of_binding(session: Session, binding: CohortBinding) -> CohortList | None:
    """The list that the binding reads."""
    return session.scalar(
        select(CohortList).where(
            CohortList.project_id == binding.project_id,
            CohortList.cohort_id == binding.cohort_id,
            CohortList.property == binding.destination.contact_key_property,
        )
    )


class IncompleteListError(ConfigurationError):
    """The list may be less than the cohort."""


def _ready(session: Session, binding: CohortBinding) -> CohortList:
    """The binding's list, refused while it may be less than the cohort."""
    names = {"binding": binding.name, "cohort": binding.cohort_id, "source": binding.project.name}
    found = of_binding(session, binding)
    if found is None or not webhooks.begun(session, found):
        raise ConfigurationError("WEBHOOK_NO_MESSAGE", **names)
    if not found.complete or _began_with_leavers(session, found):
        raise IncompleteListError("WEBHOOK_INCOMPLETE", **names)
    return found


def _began_with_leavers(session: Session, found: CohortList) -> bool:
    """Whether somebody left in the first sync that was seen: then it was not Amplitude's first one."""
    # Its beginning was looked at a week ago and is gone, or a download has taken its place.
    if found.forgotten_through is not None or found.based_at is not None:
        return False
    first = _first(found)
    left = select(WebhookMessage.id).where(
        WebhookMessage.list_id == found.id,
        WebhookMessage.computed_time == first,
        WebhookMessage.in_cohort.is_(False),
        WebhookMessage.n + WebhookMessage.blank > 0,
    )
    return session.scalar(left.limit(1)) is not None


def _settles(session: Session, binding: CohortBinding, found: CohortList) -> datetime | None:
    """When the first sync will have ended, where half of it could make anybody leave.

    A list that was begun before the binding's first push only grows while it comes in. One that was begun
    later (the binding was fed by downloads before) is waited for until nothing more comes, of whichever
    attempt. Whether it is whole then, `list_trust` says.
    """
    locked = binding.attribute_locked_at
    if locked is None or found.created_at < locked or found.forgotten_through is not None:
        return None
    if found.based_at is not None or found.proven_at is not None:
        return None
    last = session.scalar(
        select(func.max(WebhookMessage.received_at)).where(WebhookMessage.list_id == found.id)
    )
    return None if last is None else last + ENDED_AFTER


def _first(found: CohortList) -> ColumnElement[int]:
    return (
        select(func.min(WebhookMessage.computed_time))
        .where(WebhookMessage.list_id == found.id)
        .scalar_subquery()
    )


# --- reading it -----------------------------------------------------------------------------------------


def look(session: Session, snapshot: Snapshot) -> ListView:
    """The list as the snapshot holds it; from here on the session sees one state, also on PostgreSQL."""
    one_state(session)
    found = session.scalar(select(CohortList).where(_of(snapshot)))
    if found is None or snapshot.upto is None:
        raise ConfigurationError("WEBHOOK_LIST_GONE", cohort=snapshot.cohort_id)
    mine = _applied(found.id, snapshot.upto)
    new = session.execute(
        select(
            WebhookMessage.id, WebhookMessage.in_cohort, WebhookMessage.blank, WebhookMessage.computed_time
        ).where(mine, webhooks.standing(found), WebhookMessage.folded.is_(False))
    ).all()
    since = min((row.computed_time for row in new), default=None)
    replayed, changes = (0, 0)
    if since is not None:
        replayed, changes = session.execute(
            select(func.count(), func.coalesce(func.sum(WebhookMessage.n), 0)).where(
                mine, WebhookMessage.computed_time >= since
            )
        ).one()
    return ListView(
        list_id=found.id,
        generation=found.generation,
        members=found.members,
        blank=found.blank + sum(row.blank if row.in_cohort else -row.blank for row in new),
        unfolded=[row.id for row in new],
        since=since,
        upto=snapshot.upto,
        replayed=int(replayed),
        changes=int(changes),
        alone=_oldest_needed(session, snapshot) >= snapshot.upto,
    )


def _of(snapshot: Snapshot) -> ColumnElement[bool]:
    return (
        (CohortList.project_id == snapshot.project_id)
        & (CohortList.cohort_id == snapshot.cohort_id)
        & (CohortList.property == snapshot.property)
    )


def _applied(list_id: int, upto: int) -> ColumnElement[bool]:
    """What the snapshot holds, and what the parts hold anyhow: a stretch of the order must be applied whole."""
    return (WebhookMessage.list_id == list_id) & or_(
        WebhookMessage.id <= upto, WebhookMessage.folded.is_(True)
    )


def _oldest_needed(session: Session, snapshot: Snapshot) -> int:
    """The oldest state of the list that an unfinished run stands on: a held one is approved as it was shown."""
    return (
        session.scalar(
            select(func.min(Snapshot.upto))
            .join(SyncRun, SyncRun.snapshot_id == Snapshot.id)
            .where(
                SyncRun.state.in_(UNFINISHED_WORDS),
                Snapshot.kind == SnapshotKind.WEBHOOK,
                Snapshot.project_id == snapshot.project_id,
                Snapshot.cohort_id == snapshot.cohort_id,
                Snapshot.property == snapshot.property,
            )
        )
        or 0
    )


def iter_parts(session: Session, view: ListView) -> Iterator[bytes]:
    """The parts, in order; fails if they are not whole."""
    seen = 0
    for n, keys in session.execute(
        select(CohortListPart.n, CohortListPart.keys)
        .where(CohortListPart.list_id == view.list_id, CohortListPart.generation == view.generation)
        .order_by(CohortListPart.part)
        .execution_options(yield_per=1)
    ):
        seen += n
        yield keys
    if seen != view.members:  # a list read in pieces would make everybody leave who is in a missing one
        raise TransientError("INTERNAL", kind="a list that is not whole")


def iter_messages(session: Session, view: ListView) -> Iterator[tuple[Direction, bytes]]:
    """What is to be applied to the parts, in order."""
    if view.since is None:
        return
    rows = session.execute(
        select(WebhookMessage.in_cohort, WebhookMessage.keys)
        .where(_applied(view.list_id, view.upto), WebhookMessage.computed_time >= view.since)
        .order_by(WebhookMessage.computed_time, WebhookMessage.in_cohort, WebhookMessage.id)
        .execution_options(yield_per=20)
    )
    for entered, keys in rows:
        yield Direction.ENTER if entered else Direction.EXIT, keys


# --- keeping it short -----------------------------------------------------------------------------------


def fold(
    session: Session, view: ListView, ahead: Ahead, rest: Iterable[tuple[int, bytes]]
) -> Counting | Literal[False] | None:
    """Let the parts of that view, stored ahead but for the `rest`, be the list's members; `fold_messages` follows.

    False if somebody was faster; none if the parts can't count any more.
    """
    owner = generations.of_list(view.list_id)
    if owner.hold(session) != view.generation:
        return False
    counting = generations.complete(session, owner, ahead, rest)
    if counting is not None:
        found = session.get_one(CohortList, view.list_id)
        found.generation, found.members = counting.generation, counting.members
    return counting


def fold_messages(steps: Steps, view: ListView, generation: int) -> None:
    """Note which messages that generation holds, some to a commit.

    Until it is noted they are applied to it once more, in their order, which changes nothing; and who has no key is
    counted with the messages.
    """
    owner = generations.of_list(view.list_id)
    for start in range(0, len(view.unfolded), MESSAGES_AT_ONCE):
        with step(steps) as (session, _):
            if owner.hold(session) != generation:
                return
            noted = session.execute(
                update(WebhookMessage)
                .where(
                    WebhookMessage.id.in_(view.unfolded[start : start + MESSAGES_AT_ONCE]),
                    WebhookMessage.folded.is_(False),
                )
                .values(folded=True)
                .returning(WebhookMessage.in_cohort, WebhookMessage.blank)
                .execution_options(synchronize_session=False)
            ).all()
            found = session.get_one(CohortList, view.list_id)
            found.blank += sum(row.blank if row.in_cohort else -row.blank for row in noted)


def drop_replaced(steps: Steps, list_id: int, run_id: int) -> None:
    """Remove parts that do not count, and messages that are in those that do.

    Parts above those that count may be another run's, of a binding that reads the same list, unless none is at work.
    """
    generations.drop_others(steps, generations.of_list(list_id), at_work=_at_work(list_id, but=run_id))
    gone = select(WebhookMessage.id).join(CohortList).where(CohortList.id == list_id, webhooks.overtaken())
    drop(steps, delete(WebhookMessage).where(WebhookMessage.id.in_(gone.limit(MESSAGES_AT_ONCE))))


def _at_work(list_id: int, *, but: int) -> ColumnElement[bool]:
    """Whether another run than `but` may be storing parts of the list."""
    return (
        select(SyncRun.id)
        .join(CohortBinding, CohortBinding.id == SyncRun.binding_id)
        .join(Destination, Destination.id == CohortBinding.destination_id)
        .join(
            CohortList,
            (CohortList.project_id == CohortBinding.project_id)
            & (CohortList.cohort_id == CohortBinding.cohort_id)
            & (CohortList.property == Destination.contact_key_property),
        )
        .where(
            CohortList.id == list_id,
            SyncRun.id != but,
            SyncRun.state == literal_word(RunState.RUNNING),
            SyncRun.stage.in_((Stage.SNAPSHOT, Stage.DIFF)),
        )
        .exists()
    )


def forget_old(session: Session, list_id: int, *, now: datetime) -> int:
    """Forget the folded beginning of the order that nothing late can fall into any more; how many messages it is.

    `drop_replaced` removes them.
    """
    found = session.get(CohortList, list_id)
    if found is None:
        return 0
    webhooks.hold_messages(session, found)
    session.refresh(found)
    mine = webhooks.standing(found)
    keep = session.scalar(
        select(func.min(WebhookMessage.computed_time)).where(
            mine, or_(WebhookMessage.folded.is_(False), WebhookMessage.received_at > now - KEEP)
        )
    )
    old = mine if keep is None else mine & (WebhookMessage.computed_time < keep)
    count, newest = session.execute(
        select(func.count(), func.max(WebhookMessage.computed_time)).where(old)
    ).one()
    if count:
        # What these messages show of a sync that failed must outlive them: the list stays wrong.
        verdict = list_trust.judge(list_facts.facts(session, found), now=now, ended_after=ENDED_AFTER)
        list_facts.keep(found, verdict)
        found.doubts = {**found.doubts, **list_trust.lasting(verdict.doubts, whole=True)}
        found.forgotten_through = newest
        found.forgotten += count
    return int(count)
