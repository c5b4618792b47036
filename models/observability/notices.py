"""Notices: needs with a beginning and an end.

A look compares what needs a person with the notices that are open. A unique index over the open ones lets any number
of monitors look at once; a need that is gone for a moment has not ended. What was told of a notice, and to whom,
stands in `models/observability/deliveries.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from models.database import Database, bulk
from models.observability.alerts import Alert
from models.tables import Notice, NoticeChannel, NoticeDelivery

GONE = timedelta(minutes=1)  # what comes back sooner has not ended
KEPT = timedelta(days=90)
# Changes of each kind a look: its connection may have but a few seconds. What is left is found by the next look.
AT_ONCE = 20_000
IDS_AT_ONCE = 1_000


def note(db: Database, needs: Iterable[Alert], now: datetime) -> tuple[int, int]:
    """Begin, keep and end notices by what is needed at `now`; how many began and ended. Writes only what changed."""
    found = {need.key: need for need in needs}
    with db.read() as session:
        known = {
            (row.kind, row.subject, row.code): row
            for row in session.execute(_KNOWN.where(Notice.ended_at.is_(None)))
        }
    new = [need for key, need in found.items() if key not in known and need.final]
    other = [(row.id, found[key]) for key, row in known.items() if key in found and _differs(row, found[key])]
    gone = [row.id for key, row in known.items() if key not in found and row.gone_at is None]
    over = any(row.gone_at is not None and row.gone_at <= now - GONE for row in known.values())
    if not (new or other or gone or over):
        return 0, 0
    with db.write() as session:
        _keep(session, other[:AT_ONCE])
        _miss(session, gone[:AT_ONCE], now)
        return _begin(session, new[:AT_ONCE], now), _end(session, now)


def history(
    session: Session, *, ended: bool, limit: int
) -> list[tuple[Notice, list[tuple[NoticeDelivery, str]]]]:
    """The newest notices first, each with what every channel was told of it; `ended`: also those that are over."""
    newest = select(Notice).order_by(Notice.id.desc()).limit(limit)
    rows = list(session.scalars(newest if ended else newest.where(Notice.ended_at.is_(None))))
    told: dict[int, list[tuple[NoticeDelivery, str]]] = {row.id: [] for row in rows}
    tellings = select(NoticeDelivery, NoticeChannel.name).join(
        NoticeChannel, NoticeChannel.id == NoticeDelivery.channel_id
    )
    for ids in _portions(list(told)):
        found = tellings.where(NoticeDelivery.notice_id.in_(ids)).order_by(NoticeDelivery.channel_id)
        for telling, channel in session.execute(found):
            told[telling.notice_id].append((telling, channel))
    return [(row, told[row.id]) for row in rows]


def forget_old(db: Database, now: datetime) -> int:
    """Forget what was over long ago; how much."""
    with db.write() as session:
        return _count(session.execute(delete(Notice).where(Notice.ended_at < now - KEPT)))


_KNOWN = select(
    Notice.id,
    Notice.kind,
    Notice.subject,
    Notice.code,
    Notice.about,
    Notice.message,
    Notice.remedy,
    Notice.gone_at,
)


def _differs(row: Any, need: Alert) -> bool:
    """Whether it came back, or is said in other words: a name was changed, a count has grown."""
    return row.gone_at is not None or (row.about, row.message, row.remedy) != (
        need.about,
        need.message,
        need.remedy,
    )


def _begin(session: Session, needs: Sequence[Alert], now: datetime) -> int:
    rows = [
        {
            "kind": need.kind,
            "subject": need.id,
            "about": need.about,
            "code": need.code,
            "message": need.message,
            "remedy": need.remedy,
            "began_at": now,
        }
        for need in needs
    ]
    return len(bulk.insert_missing(session, Notice, rows, "id"))


def _keep(session: Session, rows: Sequence[tuple[int, Alert]]) -> None:
    bulk.update_by_id(
        session,
        Notice,
        [
            {
                "id": row,
                "about": need.about,
                "message": need.message,
                "remedy": need.remedy,
                "gone_at": None,
            }
            for row, need in rows
        ],
    )


def _miss(session: Session, rows: Sequence[int], now: datetime) -> None:
    for ids in _portions(rows):
        session.execute(
            update(Notice)
            .where(Notice.id.in_(ids), Notice.gone_at.is_(None))
            .values(gone_at=now)
            .execution_options(synchronize_session=False)
        )


def _end(session: Session, now: datetime) -> int:
    return _count(
        session.execute(
            update(Notice)
            .where(Notice.ended_at.is_(None), Notice.gone_at <= now - GONE)
            .values(ended_at=Notice.gone_at)
            .execution_options(synchronize_session=False)
        )
    )


def _portions(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))


def _count(result: Any) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0
