"""The journal of a run's batches: planned, sent, followed to their end, acknowledged.

An acknowledged batch is the delta log of its binding: acknowledging one *is* changing the state, in the same
transaction as the run's counts. Key blobs are opaque here (`models/contact_keys/codec.py` makes and reads them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Select, and_, delete, func, or_, select
from sqlalchemy.orm import Session, undefer

from models.database.steps import Steps, drop
from models.direction import Direction
from models.runs import rejections, unresolved_batches
from models.runs.rejections import RejectedRow
from models.runs.slots import SlotRules, may_take
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import IN_FLIGHT_WORDS, BatchState, Stage

QUIET_MIN = timedelta(seconds=3)
AT_ONCE = 10  # batches of up to 400,000 bytes as a rule


def plan(
    session: Session,
    run: SyncRun,
    batches: Iterable[tuple[Direction, int, bytes]],
    *,
    data_extension_id: str,
    first_seq: int = 0,
    attempts: int = 0,
    sent_at: datetime | None = None,
    unflagged: bool = False,
) -> int:
    """Journal batches of (direction, rows, keys) before any is sent; the number planned.

    While their run is at its diff nobody sends them: with its going on to push they count.
    `unflagged`: their rows leave, and this full run has read them back as not flagged.
    """
    seq = first_seq
    for direction, n, keys in batches:
        batch = PushBatch(
            run_id=run.id,
            binding_id=run.binding_id,
            data_extension_id=data_extension_id,
            seq=seq,
            direction=direction,
            n=n,
            keys=keys,
            attempts=attempts,
            sent_at=sent_at,
            unflagged=unflagged,
        )
        session.add(batch)
        session.flush()
        session.expunge(batch)  # hundreds of blobs must not pile up in the session
        seq += 1
    return seq - first_seq


def any_drafts(session: Session, run_id: int) -> bool:
    """Whether a diff of the run was killed while it journalled: asked at a diff, before anything may be sent."""
    return session.scalar(_planned(run_id).limit(1)) is not None


def drop_drafts(steps: Steps, run_id: int) -> None:
    """Remove what such a diff has left, a few batches to a commit."""
    drop(steps, delete(PushBatch).where(PushBatch.id.in_(_planned(run_id).limit(AT_ONCE))))


def _planned(run_id: int) -> Select[int]:
    return select(PushBatch.id).where(PushBatch.run_id == run_id, PushBatch.state == BatchState.PLANNED)


def adopt(
    session: Session,
    run: SyncRun,
    blobs: Iterable[tuple[int, bytes]],
    *,
    data_extension_id: str,
    now: datetime,
) -> None:
    """Journal (rows, keys) that were read back as flagged: the vendor's word is as good as an acknowledgement.

    They are the binding's state from here on, and none of them was before. They are no rows of the run's own.
    """
    for seq, (n, keys) in enumerate(blobs, start=next_seq(session, run.id)):
        batch = PushBatch(
            run_id=run.id,
            binding_id=run.binding_id,
            data_extension_id=data_extension_id,
            seq=seq,
            direction=Direction.ENTER,
            n=n,
            keys=keys,
            state=BatchState.ACKNOWLEDGED,
            acknowledged_at=now,
        )
        session.add(batch)
        session.flush()
        session.expunge(batch)
        run.binding.member_count += n
        run.binding.attribute_locked_at = run.binding.attribute_locked_at or now


def next_seq(session: Session, run_id: int) -> int:
    """The first free sequence number of a run."""
    last = session.scalar(select(func.max(PushBatch.seq)).where(PushBatch.run_id == run_id))
    return 0 if last is None else last + 1


def take_slot(
    session: Session, run: SyncRun, rules: SlotRules, *, now: datetime, rows_together: int = 0
) -> list[PushBatch]:
    """What the run sends next as one job, marked as being sent, if one of the data extension's free slots is its own.

    That is a batch, with one of the other direction if neither was sent before and both have at most `rows_together`
    rows: a slot, an upsert and its polls are saved. What is wrong with such a job is found by sending each alone.
    """
    due = select(PushBatch).where(
        PushBatch.run_id == run.id,
        PushBatch.state == BatchState.PLANNED,
        or_(PushBatch.due_at.is_(None), PushBatch.due_at <= now),
    )
    batch = session.scalar(due.order_by(PushBatch.seq).limit(1).options(undefer(PushBatch.keys)))
    if batch is None or not may_take(session, run, batch.data_extension_id, rules, now=now):
        return []
    job = [batch]
    if batch.attempts == 0 and batch.n < rows_together:
        other = due.where(
            PushBatch.attempts == 0,
            PushBatch.direction != batch.direction,
            PushBatch.n <= rows_together - batch.n,
            PushBatch.data_extension_id == batch.data_extension_id,
        )
        job += session.scalars(other.order_by(PushBatch.seq).limit(1).options(undefer(PushBatch.keys)))
    for one in job:
        one.state, one.sent_at, one.attempts = BatchState.SENDING, now, one.attempts + 1
        # Until the vendor has named the job: batches with one `request_id` are one job.
        one.request_id, one.polls, one.due_at = (f"of {batch.id}" if len(job) > 1 else None), 0, None
    if run.binding.attribute_locked_at is None:
        run.binding.attribute_locked_at = now
    return job


def submitted(session: Session, batch_id: int, request_id: str, *, poll_at: datetime) -> None:
    """The vendor has it under this request id: stored before the first poll."""
    batch = session.get_one(PushBatch, batch_id)
    batch.state, batch.request_id, batch.due_at = BatchState.SUBMITTED, request_id, poll_at


def polled(session: Session, batch_id: int, *, poll_at: datetime) -> None:
    """Not at its end yet: look again at `poll_at`."""
    batch = session.get_one(PushBatch, batch_id)
    batch.polls, batch.due_at = batch.polls + 1, poll_at


def not_sent(session: Session, batch_id: int) -> None:
    """Back to planned, as if it had not been tried: the vendor refused it, or has seen nothing."""
    batch = session.get_one(PushBatch, batch_id)
    batch.state, batch.due_at, batch.attempts = BatchState.PLANNED, None, batch.attempts - 1
    batch.request_id = None
    if batch.attempts == 0:
        batch.sent_at = None


def send_again(
    session: Session,
    batch_id: int,
    *,
    not_before: datetime | None = None,
    quiet_until: datetime | None = None,
) -> None:
    """Back to planned. With `quiet_until` the vendor may still execute what was sent, until then."""
    batch = session.get_one(PushBatch, batch_id)
    batch.state, batch.request_id, batch.due_at = BatchState.PLANNED, None, not_before
    if quiet_until is not None:
        _keep_quiet(session, batch, quiet_until)


def send_again_unheard(session: Session, run_id: int, *, quiet_until: datetime) -> None:
    """Back to planned, whatever was being sent when its worker went away: the vendor may have it or not."""
    for batch in in_flight(session, run_id):
        if batch.state == BatchState.SENDING:
            send_again(session, batch.id, quiet_until=quiet_until)


def lose(session: Session, batch_id: int, *, quiet_until: datetime) -> None:
    """Nobody will ever know how this batch ended: its keys are pushed anew by the next diff."""
    batch = session.get_one(PushBatch, batch_id)
    batch.state, batch.due_at = BatchState.LOST, None
    _keep_quiet(session, batch, quiet_until)


def _keep_quiet(session: Session, batch: PushBatch, until: datetime) -> None:
    binding = session.get_one(CohortBinding, batch.binding_id)
    binding.quiet_until = max(binding.quiet_until or until, until)


def in_doubt(session: Session, batch: PushBatch) -> bool:
    """Whether a refusal of the batch's rows leaves open how they stand.

    Either the answer to an earlier submission of the batch was lost, or its rows may be those of a lost batch.
    """
    binding = session.get_one(CohortBinding, batch.binding_id)
    run = session.get_one(SyncRun, batch.run_id)
    quiet, started = binding.quiet_until, run.started_at
    if batch.attempts > 1 and quiet is not None and started is not None and quiet > started:
        return True
    return unresolved_batches.any_lost(session, batch.binding_id, but_of=batch.run_id)


def acknowledge(
    session: Session,
    run: SyncRun,
    batch_id: int,
    *,
    accepted: tuple[int, bytes] | None = None,
    again: tuple[int, bytes] | None = None,
    again_sent_at: datetime | None = None,
    rejected: Iterable[RejectedRow] = (),
    now: datetime,
) -> None:
    """The vendor took the batch: from here on its rows are the binding's state.

    `accepted` replaces (rows, keys) where not every row was taken; `again` are rows to be sent anew (deadlock
    victims), with `again_sent_at` if they may be applied already; `rejected` are recorded. `run` is the run that
    followed the batch, maybe not the one that made it.
    """
    batch = session.get_one(PushBatch, batch_id)
    if accepted is not None:
        batch.n, batch.keys = accepted
    batch.state, batch.acknowledged_at, batch.due_at = BatchState.ACKNOWLEDGED, now, None
    binding = session.get_one(CohortBinding, batch.binding_id)
    _count(session, binding, batch)
    if batch.run_id == run.id:
        run.acknowledged += batch.n
        run.attempt = 0
    _shorten_quiet(session, binding, batch, now=now)
    if again is not None:
        plan(
            session,
            run,
            [(batch.direction, *again)],
            data_extension_id=batch.data_extension_id,
            first_seq=next_seq(session, run.id),
            attempts=batch.attempts,
            sent_at=again_sent_at,
            unflagged=batch.unflagged,
        )
    rows = list(rejected)
    if rows:
        run.rejected += len(rows)
        rejections.record(session, run, batch.direction, rows, now)


def _count(session: Session, binding: CohortBinding, batch: PushBatch) -> None:
    """The binding's members, now that the batch is acknowledged. Where members may be pushed anew it can't be told."""
    if not batch.n:
        return
    full = session.get_one(SyncRun, batch.run_id).full
    if full or unresolved_batches.any_lost(session, binding.id, but_of=batch.run_id):
        binding.member_count_rough = True
    if not full:
        binding.member_count += batch.n if batch.direction == Direction.ENTER else -batch.n


def _shorten_quiet(session: Session, binding: CohortBinding, batch: PushBatch, *, now: datetime) -> None:
    """The same batch, sent again, has ended: a lost copy of it was sent earlier, so it is hardly still to come.

    It is given three times as long as its successor took. While another batch's outcome is open nothing changes.
    """
    if binding.quiet_until is None or batch.sent_at is None:
        return
    session.flush()
    open_ones = select(PushBatch.id).where(
        PushBatch.binding_id == binding.id,
        PushBatch.sent_at.is_not(None),
        or_(
            PushBatch.state.in_((BatchState.PLANNED, BatchState.SENDING, BatchState.LOST)),
            and_(PushBatch.state == BatchState.SUBMITTED, PushBatch.attempts > 1),  # itself a successor
        ),
    )
    if session.scalar(open_ones.limit(1)) is None:
        grace = max(QUIET_MIN, 3 * (now - batch.sent_at))
        binding.quiet_until = min(binding.quiet_until, now + grace)


def split(
    session: Session, run: SyncRun, batch_id: int, parts: Iterable[tuple[int, bytes]], *, sent: bool = False
) -> None:
    """Plan the parts (rows, keys) instead of a batch that was too large to be taken.

    `sent`: rows of it may be applied already, so its parts count as sent once.
    """
    batch = session.get_one(PushBatch, batch_id)
    plan(
        session,
        run,
        [(batch.direction, n, keys) for n, keys in parts],
        data_extension_id=batch.data_extension_id,
        first_seq=next_seq(session, run.id),
        attempts=1 if sent else 0,
        sent_at=batch.sent_at if sent else None,
        unflagged=batch.unflagged,
    )
    batch.state = BatchState.DROPPED


def refused(
    session: Session, batch_id: int, *, not_before: datetime, certain: bool, last: bool = False
) -> None:
    """Back to planned, and counted as tried: refused as a whole. `certain`: the vendor took nothing of it.

    `last`: it is sent behind everything else that the run has planned.
    """
    batch = session.get_one(PushBatch, batch_id)
    if last:
        batch.seq = next_seq(session, batch.run_id)
    if certain and not in_doubt(session, batch):
        batch.sent_at = None
    batch.state, batch.request_id, batch.due_at = BatchState.PLANNED, None, not_before


def halve(
    session: Session,
    run: SyncRun,
    batch_id: int,
    parts: list[tuple[int, bytes]],
    *,
    certain: bool,
    first: bool,
) -> None:
    """Plan the parts (rows, keys) of a batch that was refused as a whole, each as tried once.

    `first`: before everything else, so that a bad row is found before the next one is looked for.
    """
    batch = session.get_one(PushBatch, batch_id)
    lowest = session.scalar(select(func.min(PushBatch.seq)).where(PushBatch.run_id == run.id)) or 0
    doubt = not certain or in_doubt(session, batch)
    plan(
        session,
        run,
        [(batch.direction, n, keys) for n, keys in parts],
        data_extension_id=batch.data_extension_id,
        first_seq=lowest - len(parts) if first else next_seq(session, run.id),
        attempts=1,
        sent_at=batch.sent_at if doubt else None,
        unflagged=batch.unflagged,
    )
    batch.state = BatchState.DROPPED


def halvings(session: Session, run_id: int) -> tuple[int, int]:
    """How many refused batches of the run were halved, and how many batches were taken."""
    mine = select(func.count()).select_from(PushBatch).where(PushBatch.run_id == run_id)
    halved = mine.where(PushBatch.state == BatchState.DROPPED, PushBatch.attempts > 1)
    taken = mine.where(PushBatch.state.in_((BatchState.ACKNOWLEDGED, BatchState.SUBMITTED)), PushBatch.n > 0)
    return session.scalar(halved) or 0, session.scalar(taken) or 0


def has_others(session: Session, batch: PushBatch) -> bool:
    """Whether the run has a batch beside this one, those that smaller ones replaced left aside."""
    others = select(PushBatch.id).where(
        PushBatch.run_id == batch.run_id, PushBatch.id != batch.id, PushBatch.state != BatchState.DROPPED
    )
    return session.scalar(others.limit(1)) is not None


def keep_lost(session: Session, batch_id: int, n: int, keys: bytes) -> None:
    """Rows of an ended batch that may be applied or not: the next diff pushes them anew."""
    batch = session.get_one(PushBatch, batch_id)
    lost = PushBatch(
        run_id=batch.run_id,
        binding_id=batch.binding_id,
        data_extension_id=batch.data_extension_id,
        seq=next_seq(session, batch.run_id),
        direction=batch.direction,
        n=n,
        keys=keys,
        attempts=batch.attempts,
        sent_at=batch.sent_at,
        state=BatchState.LOST,
    )
    session.add(lost)
    session.flush()


# --- looking ---------------------------------------------------------------------------------------------


def in_flight(session: Session, run_id: int) -> list[PushBatch]:
    """The run's batches at the vendor, without their keys."""
    return list(
        session.scalars(
            select(PushBatch)
            .where(PushBatch.run_id == run_id, PushBatch.state.in_(IN_FLIGHT_WORDS))
            .order_by(PushBatch.seq)
        )
    )


def jobs(flying: Sequence[PushBatch]) -> list[list[PushBatch]]:
    """The submitted ones by the job that they are, each in the order of its rows."""
    sent = sorted((one for one in flying if one.state == BatchState.SUBMITTED), key=_place)
    return [list(job) for _, job in groupby(sent, lambda one: one.request_id)]


def _place(batch: PushBatch) -> tuple[str, int]:
    return batch.request_id or "", batch.seq


def slot_wanted(session: Session, run: SyncRun, *, now: datetime) -> str | None:
    """The id of the data extension that a batch of the run may be sent to now, if there is one."""
    return None if run.stage != Stage.PUSH or run.cancel_requested else due_for(session, run.id, now=now)


def due_for(session: Session, run_id: int, *, now: datetime) -> str | None:
    """The same, whatever the run is about to do."""
    return session.scalar(
        select(PushBatch.data_extension_id)
        .where(
            PushBatch.run_id == run_id,
            PushBatch.state == BatchState.PLANNED,
            or_(PushBatch.due_at.is_(None), PushBatch.due_at <= now),
        )
        .limit(1)
    )


def left(session: Session, run_id: int) -> list[PushBatch]:
    """What keeps a run at its push: its batches in flight, and the one of the others that may be sent first."""
    following = session.scalar(
        select(PushBatch)
        .where(PushBatch.run_id == run_id, PushBatch.state == BatchState.PLANNED)
        .order_by(PushBatch.due_at.is_not(None), PushBatch.due_at, PushBatch.seq)
        .limit(1)
    )
    return in_flight(session, run_id) + ([] if following is None else [following])


def count_by_state(session: Session, run_id: int) -> dict[str, int]:
    """How many of the run's batches are in which state."""
    rows = session.execute(
        select(PushBatch.state, func.count()).where(PushBatch.run_id == run_id).group_by(PushBatch.state)
    )
    return {state: n for state, n in rows}  # noqa: C416 - rows are Row objects


def is_unflagged(session: Session, batch_id: int) -> bool:
    """Whether its rows leave and were read back as not flagged: a refusal of them then leaves nothing to do.

    Marketing Cloud shows no flag and takes no row of that key, which is all that an exit is to bring about.
    """
    return session.scalars(select(PushBatch.unflagged).where(PushBatch.id == batch_id)).one()


def keys_of(session: Session, batch_id: int) -> bytes:
    """The batch's encoded keys."""
    return session.scalars(select(PushBatch.keys).where(PushBatch.id == batch_id)).one()
