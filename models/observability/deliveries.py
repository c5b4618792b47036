"""What each channel is told of notices: nothing is queued, it follows from the notices and from what it was told.

So a channel that was away for hours hears once how things stand, and one that is new hears what is still open. A
message is claimed by compare-and-set and journalled before it leaves; where its sender dies, the claim runs out and
the next look tells the same again. Nothing here knows a URL, or sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from models.database import Database
from models.database.bulk import insert_into
from models.observability.alerts import CHANNEL
from models.tables import Notice, NoticeChannel, NoticeDelivery

STOOD = timedelta(
    seconds=30
)  # what passes sooner is not told: a hiccup of the queue, a stack that just starts
AGAIN = timedelta(hours=24)
GIVEN_UP = timedelta(days=1)
CLAIM = timedelta(minutes=2)  # longer than a message may be on its way
RETRY_FIRST, RETRY_LAST = timedelta(seconds=30), timedelta(minutes=15)
LINES = 20


@dataclass(frozen=True, slots=True)
class NotificationLine:
    """One notice in a message: new, told `again` because it lasts, or over since `ended_at`."""

    about: str
    code: str
    message: str
    remedy: str
    began_at: datetime
    ended_at: datetime | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Notification:
    """What a channel is to be told: how many notices, and the first of them."""

    needs: int
    over: int
    lines: Sequence[NotificationLine]


@dataclass(frozen=True, slots=True)
class ChannelClaim:
    """The right to send `message` through a channel: good while nobody has claimed it with a higher fence."""

    channel: int
    fence: int
    message: Notification


@dataclass(frozen=True, slots=True)
class DeliveryRefused:
    """A message that did not get through; `given_up` counts notices that were tried for a day."""

    attempts: int
    given_up: int


def due(session: Session, digest: str, now: datetime) -> bool:
    """Whether the channel has something to be told at `now`: asked before any lock is taken."""
    channel = session.scalar(select(NoticeChannel).where(NoticeChannel.digest == digest))
    if channel is None:
        return bool(session.scalar(select(exists().where(_stands(now)))))
    if (channel.claimed_until or now) > now or (channel.next_at or now) > now:
        return False
    told = exists().where(_of(channel.id), Notice.id == NoticeDelivery.notice_id, _again(now) | _over())
    return bool(session.scalar(select(exists().where(_fresh(channel.id, now)) | told)))


def claim(db: Database, digest: str, name: str, now: datetime) -> ChannelClaim | None:
    """Take the channel and journal what it is to be told; none if another has it or nothing is to be told."""
    with db.write() as session:
        row = {"digest": digest, "name": name, "fence": 0, "attempts": 0}
        upsert = insert_into(NoticeChannel, db.dialect).on_conflict_do_nothing()
        session.connection().execute(upsert, row)
        taken = session.execute(
            update(NoticeChannel)
            .where(
                NoticeChannel.digest == digest,
                or_(NoticeChannel.claimed_until.is_(None), NoticeChannel.claimed_until <= now),
                or_(NoticeChannel.next_at.is_(None), NoticeChannel.next_at <= now),
            )
            .values(name=name, fence=NoticeChannel.fence + 1, claimed_until=now + CLAIM)
            .returning(NoticeChannel.id, NoticeChannel.fence)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if taken is None:
            return None
        channel, fence = taken
        _journal(session, channel, fence, now)
        message = _message(session, channel, fence)
        if not (message.needs or message.over):
            session.rollback()
            return None
        return ChannelClaim(channel, fence, message)


def delivered(db: Database, held: ChannelClaim, now: datetime, *, pause: timedelta) -> None:
    """It got through; the next message may follow after the `pause`."""
    first, told = NoticeDelivery.told_at.is_(None), ~NoticeDelivery.ending
    with db.write() as session:
        session.execute(
            update(NoticeDelivery)
            .where(_of(held.channel), NoticeDelivery.fence == held.fence)
            .values(
                told_at=case((and_(told, first), now), else_=NoticeDelivery.told_at),
                reminded_at=case((and_(told, ~first), now), else_=NoticeDelivery.reminded_at),
                over_at=case((NoticeDelivery.ending, now)),
            )
            .execution_options(synchronize_session=False)
        )
        session.execute(
            update(NoticeChannel)
            .where(NoticeChannel.id == held.channel, NoticeChannel.fence == held.fence)
            .values(claimed_until=None, next_at=now + pause, attempts=0, failing_since=None)
            .execution_options(synchronize_session=False)
        )


def refused(db: Database, held: ChannelClaim, now: datetime) -> DeliveryRefused | None:
    """It did not get through, or nobody knows; none if another has the channel now."""
    with db.write() as session:
        channel = session.scalar(
            select(NoticeChannel)
            .where(NoticeChannel.id == held.channel, NoticeChannel.fence == held.fence)
            .with_for_update()
        )
        if channel is None:
            return None
        wait = min(RETRY_LAST, RETRY_FIRST * 2 ** min(channel.attempts, 10))
        channel.attempts += 1
        channel.claimed_until, channel.next_at = None, now + wait
        channel.failing_since = channel.failing_since or now
        long = channel.failing_since <= now - GIVEN_UP
        return DeliveryRefused(channel.attempts, _give_up(session, held, now) if long else 0)


def keep_only(db: Database, digests: Sequence[str]) -> None:
    """A channel that is not in the settings any more is not complained of."""
    with db.write() as session:
        session.execute(
            update(NoticeChannel)
            .where(NoticeChannel.digest.not_in(digests), NoticeChannel.failing_since.is_not(None))
            .values(failing_since=None, attempts=0, next_at=None)
            .execution_options(synchronize_session=False)
        )


# --- what follows from what -------------------------------------------------------------------------------


def _stands(now: datetime) -> ColumnElement[bool]:
    return and_(Notice.ended_at.is_(None), Notice.gone_at.is_(None), Notice.began_at <= now - STOOD)


def _of(channel: int) -> ColumnElement[bool]:
    return and_(NoticeDelivery.channel_id == channel, NoticeDelivery.over_at.is_(None))


def _fresh(channel: int, now: datetime) -> ColumnElement[bool]:
    """A notice that the channel was never told of; that it did not get through itself is for the others."""
    told = exists().where(NoticeDelivery.notice_id == Notice.id, NoticeDelivery.channel_id == channel)
    own = and_(Notice.kind == CHANNEL, Notice.subject == channel)
    return and_(_stands(now), ~told, ~own)


def _again(now: datetime) -> ColumnElement[bool]:
    """A notice that lasts since it was told, or given up; or one that was tried and may not have arrived."""
    times = (NoticeDelivery.told_at, NoticeDelivery.reminded_at, NoticeDelivery.given_up_at)
    return and_(_stands(now), *(or_(time.is_(None), time <= now - AGAIN) for time in times))


def _over() -> ColumnElement[bool]:
    """A notice that has ended, and whose beginning the channel was told, or may have been."""
    before = and_(NoticeDelivery.told_at.is_not(None), NoticeDelivery.given_up_at < Notice.ended_at)
    return and_(Notice.ended_at.is_not(None), or_(NoticeDelivery.given_up_at.is_(None), before))


def _journal(session: Session, channel: int, fence: int, now: datetime) -> None:
    """Write down what stands in the message before it leaves: what may have arrived is followed to its end."""
    for condition, ending in ((_again(now), False), (_over(), True)):
        session.execute(
            update(NoticeDelivery)
            .where(
                _of(channel),
                exists().where(Notice.id == NoticeDelivery.notice_id, condition).correlate(NoticeDelivery),
            )
            .values(fence=fence, ending=ending)
            .execution_options(synchronize_session=False)
        )
    fresh = select(Notice.id, literal(channel), literal(fence), false()).where(_fresh(channel, now))
    session.execute(insert(NoticeDelivery).from_select(["notice_id", "channel_id", "fence", "ending"], fresh))


def _message(session: Session, channel: int, fence: int) -> Notification:
    told = and_(_of(channel), NoticeDelivery.fence == fence)
    count = select(NoticeDelivery.ending, func.count()).where(told).group_by(NoticeDelivery.ending)
    counts = {bool(ending): number for ending, number in session.execute(count)}
    again = NoticeDelivery.told_at.is_not(None)
    rows = session.execute(
        select(Notice, again.label("again"), NoticeDelivery.ending)
        .join(NoticeDelivery, NoticeDelivery.notice_id == Notice.id)
        .where(told)
        .order_by(NoticeDelivery.ending, again, Notice.id)
        .limit(LINES)
    )
    lines = [
        NotificationLine(
            row.about,
            row.code,
            row.message,
            row.remedy,
            row.began_at,
            row.ended_at if ending else None,
            again=bool(known),
        )
        for row, known, ending in rows
    ]
    return Notification(counts.get(False, 0), counts.get(True, 0), lines)


def _give_up(session: Session, held: ChannelClaim, now: datetime) -> int:
    """What was tried for a day; a reminder at once, as there will be another."""
    old = select(Notice.id).where(func.coalesce(Notice.ended_at, Notice.began_at) <= now - GIVEN_UP)
    reminder = and_(NoticeDelivery.told_at.is_not(None), ~NoticeDelivery.ending)
    result = session.execute(
        update(NoticeDelivery)
        .where(
            _of(held.channel),
            NoticeDelivery.fence == held.fence,
            or_(reminder, NoticeDelivery.notice_id.in_(old)),
        )
        .values(given_up_at=now)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount if isinstance(result, CursorResult) else 0
