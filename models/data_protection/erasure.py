"""Taking contacts out of everything that is stored: members, batches, rejections, and what webhooks told.

Blob by blob, each in a transaction of its own, so that nobody waits for more than one. A batch that is at the vendor is
left: its results are matched by position. Whoever calls this has forgotten the contacts first (`forgotten.py` beside
this), so nothing that is stored meanwhile has them, and a pass that finds nothing is the end.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.contact_keys import codec
from models.data_protection import forgotten
from models.database import Database
from models.database.errors import named_errors
from models.membership import generations, webhooks
from models.tables import (
    CohortBinding,
    CohortList,
    CohortListPart,
    ForgottenContact,
    MemberChunk,
    PushBatch,
    Rejection,
    SyncRun,
    WebhookMessage,
)
from models.types import IN_FLIGHT, BatchState

ROWS_AT_ONCE = 1000
BLOBS_AT_ONCE = 20
# A rewrite of a large table keeps its users waiting: PostgreSQL gives up rather than queue them all behind it.
LOCK_TIMEOUT = "30s"
_REWRITTEN = (
    "member_chunk",
    "push_batch",
    "rejection",
    "cohort_list_part",
    "webhook_message",
    "snapshot_part",
)


@dataclass(frozen=True)
class Wanted:
    """Who is to go: whether a blob of the codec has one of them, and whether a key is one of theirs."""

    in_blob: Callable[[bytes], bool]
    gone: Callable[[str], bool]


@dataclass
class Found:
    """Where they were, by the name of the place: how many blobs or rows; and the runs whose batches still have them."""

    places: Counter[str] = field(default_factory=Counter)
    pending: set[int] = field(default_factory=set)
    moved: bool = False  # a blob went meanwhile, by a compaction: another pass looks at what came of it


def remove(db: Database, wanted: Wanted) -> Found:
    """Remove them everywhere, and say where they were."""
    found = Found()
    while True:
        one = Found()
        _members(db, wanted, one)
        _batches(db, wanted, one)
        _rejections(db, wanted, one)
        _lists(db, wanted, one)
        found.places += one.places
        found.pending = one.pending
        if not (one.places or one.moved):
            return found


def remove_all(db: Database, *, now: datetime) -> None:
    """Remove everybody who is forgotten, known by their hashes alone: 1 us a key that is stored."""
    with db.read() as session:
        gone = forgotten.load(session, db.keyring)
    found = remove(
        db, Wanted(lambda blob: any(key in gone for key in codec.decode_keys(blob)), gone.__contains__)
    )
    rewrite(db)
    if not found.pending:
        with db.write() as session:
            session.execute(
                update(ForgottenContact)
                .where(ForgottenContact.removed_at.is_(None))
                .values(removed_at=now, leaving=False)
            )


def _members(db: Database, wanted: Wanted, found: Found) -> None:
    with db.read() as session:
        parts = session.execute(
            select(MemberChunk.binding_id, MemberChunk.generation, MemberChunk.part).order_by(
                MemberChunk.binding_id, MemberChunk.part
            )
        ).all()
    for binding_id, generation, part in parts:
        mine = (
            (MemberChunk.binding_id == binding_id)
            & (MemberChunk.generation == generation)
            & (MemberChunk.part == part)
        )
        with db.read() as session:
            blob = _blob(session, MemberChunk.keys, mine, found)
        if blob is None or not wanted.in_blob(blob):
            continue
        with db.write() as session:
            forgotten.hold_stores(session)  # no compaction reads what is rewritten here
            blob = _blob(session, MemberChunk.keys, mine, found)
            if blob is None:
                continue
            n, kept = codec.without(blob, wanted.gone)
            if n:
                session.execute(update(MemberChunk).where(mine).values(n=n, keys=kept))
            else:
                session.execute(delete(MemberChunk).where(mine))
            _in_doubt(session, binding_id)
            found.places["members"] += 1


def _blob(
    session: Session, keys: InstrumentedAttribute[bytes], mine: ColumnElement[bool], found: Found
) -> bytes | None:
    """The keys that were there when it was looked for them; none, and noted, if they have moved."""
    blob = session.scalar(select(keys).where(mine))
    found.moved |= blob is None
    return blob


def _batches(db: Database, wanted: Wanted, found: Found) -> None:
    for rows in _in_steps(db, PushBatch.id, PushBatch.keys, size=BLOBS_AT_ONCE):
        for batch_id, blob in rows:
            if wanted.in_blob(blob):
                _batch(db, batch_id, wanted, found)


def _in_steps(
    db: Database, number: InstrumentedAttribute[int], value: InstrumentedAttribute[Any], *, size: int
) -> Iterator[Sequence[Row[int, Any]]]:
    """All rows of a table as (id, value), in pages of `size`; nothing stays open between two steps."""
    after = 0
    while True:
        with db.read() as session:
            rows = session.execute(
                select(number, value).where(number > after).order_by(number).limit(size)
            ).all()
        if not rows:
            return
        yield rows
        after = rows[-1][0]


def _batch(db: Database, batch_id: int, wanted: Wanted, found: Found) -> None:
    with db.write() as session:
        forgotten.hold_stores(session)
        row = session.execute(
            select(
                PushBatch.state, PushBatch.run_id, PushBatch.binding_id, PushBatch.keys, SyncRun.finished_at
            )
            .join(SyncRun, PushBatch.run_id == SyncRun.id)
            .where(PushBatch.id == batch_id)
            .with_for_update(of=PushBatch)
        ).one_or_none()
        if row is None:
            return
        if row.state in IN_FLIGHT or (row.state == BatchState.PLANNED and row.finished_at is None):
            found.pending.add(row.run_id)
            return
        n, kept = codec.without(row.keys, wanted.gone)
        session.execute(update(PushBatch).where(PushBatch.id == batch_id).values(n=n, keys=kept))
        _in_doubt(session, row.binding_id)
        found.places["batches"] += 1


def _rejections(db: Database, wanted: Wanted, found: Found) -> None:
    for rows in _in_steps(db, Rejection.id, Rejection.key, size=ROWS_AT_ONCE):
        gone = [row.id for row in rows if wanted.gone(row.key)]
        if gone:
            with db.write() as session:
                session.execute(delete(Rejection).where(Rejection.id.in_(gone)))
            found.places["rejections"] += len(gone)


def _lists(db: Database, wanted: Wanted, found: Found) -> None:
    with db.read() as session:
        lists = session.scalars(select(CohortList.id).order_by(CohortList.id)).all()
    for list_id in lists:
        with db.read() as session:
            parts = session.execute(
                select(CohortListPart.generation, CohortListPart.part).where(
                    CohortListPart.list_id == list_id
                )
            ).all()
            messages = session.scalars(
                select(WebhookMessage.id).where(WebhookMessage.list_id == list_id).order_by(WebhookMessage.id)
            ).all()
        for generation, part in parts:
            _list_part(db, list_id, generation, part, wanted, found)
        for message_id in messages:
            _message(db, list_id, message_id, wanted, found)


def _list_part(db: Database, list_id: int, generation: int, part: int, wanted: Wanted, found: Found) -> None:
    mine = (
        (CohortListPart.list_id == list_id)
        & (CohortListPart.generation == generation)
        & (CohortListPart.part == part)
    )
    with db.read() as session:
        blob = _blob(session, CohortListPart.keys, mine, found)
    if blob is None or not wanted.in_blob(blob):
        return
    with db.write() as session:
        of = session.get(CohortList, list_id)
        if of is None:
            return
        webhooks.hold_messages(session, of)
        session.refresh(of, with_for_update=True)
        blob = _blob(session, CohortListPart.keys, mine, found)
        if blob is None:
            return
        if of.generation != generation:  # nobody reads it any more
            session.execute(delete(CohortListPart).where(mine))
            return
        n, kept = codec.without(blob, wanted.gone)
        of.members += n - codec.count(blob)
        if n:
            session.execute(update(CohortListPart).where(mine).values(n=n, keys=kept))
        else:
            session.execute(delete(CohortListPart).where(mine))
        _new_generation(session, of)
        found.places["webhook lists"] += 1


def _message(db: Database, list_id: int, message_id: int, wanted: Wanted, found: Found) -> None:
    mine = WebhookMessage.id == message_id
    with db.read() as session:
        blob = _blob(session, WebhookMessage.keys, mine, found)
    if blob is None or not wanted.in_blob(blob):
        return
    n, kept = codec.without(blob, wanted.gone)  # a message never changes
    with db.write() as session:
        of = session.get(CohortList, list_id)
        if of is None:
            return
        webhooks.hold_messages(session, of)
        session.refresh(of, with_for_update=True)
        session.execute(update(WebhookMessage).where(mine).values(n=n, keys=kept))
        _new_generation(session, of)
    found.places["webhook messages"] += 1


def _new_generation(session: Session, of: CohortList) -> None:
    """A fold that has read what was stored before must not put it back: it asks for the generation."""
    before = of.generation
    of.generation = generations.free_number(session, generations.of_list(of.id), before)
    session.execute(
        update(CohortListPart)
        .where(CohortListPart.list_id == of.id, CohortListPart.generation == before)
        .values(generation=of.generation)
        .execution_options(synchronize_session=False)
    )


def _in_doubt(session: Session, binding_id: int) -> None:
    """The next run compares, whatever its file, and counts."""
    session.execute(
        update(CohortBinding)
        .where(CohortBinding.id == binding_id)
        .values(confirmed_digest=None, member_count_rough=True)
    )


# --- out of the files of the database -------------------------------------------------------------------


def rewrite(db: Database) -> list[str]:
    """Let nothing of what was removed stay in the database's files; what still may hold it, in words."""
    return _rewrite_sqlite(db) if db.dialect == "sqlite" else _rewrite_postgresql(db)


def _rewrite_sqlite(db: Database) -> list[str]:
    """VACUUM copies what is left into a new file, then the log is emptied (sqlite.org/wal.html, TRUNCATE)."""
    db.dispose()
    with named_errors(db.place), closing(sqlite3.connect(db.place, timeout=60, isolation_level=None)) as mine:
        mine.execute("VACUUM")
        for _ in range(20):  # whoever reads an older state keeps the log for so long
            busy, *_ = mine.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return []
    return ["the database's log, because somebody reads it: repeat the command"]


def _rewrite_postgresql(db: Database) -> list[str]:
    """VACUUM FULL writes each table anew. The server's own log keeps old pages until it is recycled."""
    left = [
        "PostgreSQL's write-ahead log, until it is recycled, and its archive and replicas, if there are any"
    ]
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        for table in _REWRITTEN:
            try:
                connection.execute(text(f"VACUUM FULL {table}"))
            except DBAPIError:
                left.append(f"the table {table}, which is in use or not ours: run `VACUUM FULL {table}`")
        connection.invalidate()  # the pool's others keep their own patience
    return left
