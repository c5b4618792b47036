"""Snapshots: the ledger of what was downloaded, who may share one, and uploaded cohort files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from config.settings import Settings
from models.database import lock
from models.errors import ConfigurationError
from models.tables import AmplitudeProject, CohortBinding, Snapshot, SnapshotPart, SyncRun
from models.types import UNFINISHED_WORDS, Feed, SnapshotKind, SnapshotState, Trigger, literal_word

_DOWNLOAD = literal_word(SnapshotKind.DOWNLOAD)
UPLOAD_PART_BYTES = 4 << 20
MAX_MEMBERS = 2_000_000  # "Max cohort size via this API" (Amplitude, since August 2024)


@dataclass(frozen=True)
class FreshnessPolicy:
    """How old a download may be that is used: `seconds`; and a job that has not ended yet, `deadline` seconds."""

    seconds: float
    deadline: float

    @classmethod
    def of(cls, settings: Settings) -> FreshnessPolicy:
        """As it is set up here."""
        return cls(settings.snapshot_fresh_seconds, settings.snapshot_deadline_seconds)


def shareable(
    session: Session, binding: CohortBinding, trigger: str, *, due: datetime, fresh: FreshnessPolicy
) -> Snapshot | None:
    """A download that serves a run of the binding too, which has not used it already.

    Requested since the run was due, or, for a scheduled run, a little before. One that no run has used was paid for by
    a dry run (`worker/stages/dry_run.py`): if recent, it serves any run, whether it has ended or not.
    """
    slack = fresh.seconds if trigger in {Trigger.SCHEDULE, Trigger.RETRY} else 0
    used = exists().where(SyncRun.snapshot_id == Snapshot.id, SyncRun.binding_id == binding.id)
    # No download takes longer than its deadline: older ones can't serve, whatever became of them.
    oldest = due - timedelta(seconds=max(slack, fresh.seconds + 2 * fresh.deadline))
    ended, asked = Snapshot.completed_at, Snapshot.requested_at
    return session.scalar(
        select(Snapshot)
        .where(
            _downloaded(binding),
            Snapshot.property == binding.destination.contact_key_property,
            Snapshot.state.in_((SnapshotState.REQUESTED, SnapshotState.COMPLETED)),
            Snapshot.requested_at >= oldest,
            ~used,
            or_(
                asked >= due - timedelta(seconds=slack),
                _of_a_plan(binding)
                & or_(
                    ended >= due - timedelta(seconds=fresh.seconds),
                    ended.is_(None) & (asked >= due - timedelta(seconds=fresh.deadline)),
                ),
            ),
        )
        .order_by(Snapshot.id.desc())
        .limit(1)
    )


def recent(
    session: Session, binding: CohortBinding, *, now: datetime, fresh: FreshnessPolicy
) -> Snapshot | None:
    """The newest download of the binding's cohort, if it is no older than `fresh.seconds`, whoever has used it.

    For a run by hand that does not ask for a new one; its file is fetched again, which costs nothing. None for a
    binding that is fed by webhook.
    """
    if binding.feed == Feed.WEBHOOK:
        return None
    return session.scalar(
        select(Snapshot)
        .where(
            _downloaded(binding),
            Snapshot.property == binding.destination.contact_key_property,
            Snapshot.state == SnapshotState.COMPLETED,
            Snapshot.request_id.is_not(None),
            Snapshot.completed_at >= now - timedelta(seconds=fresh.seconds),
        )
        .order_by(Snapshot.requested_at.desc())
        .limit(1)
    )


def usual_seconds(session: Session, snapshot: Snapshot) -> float:
    """What a job for this cohort takes: the shortest of its last three, as they were seen to end. 0 if there was none.

    The shortest, because a run that could not look for an hour saw a job end an hour late.
    """
    ended = session.execute(
        select(Snapshot.requested_at, Snapshot.completed_at)
        .where(_downloaded(snapshot), Snapshot.completed_at.is_not(None))
        .order_by(Snapshot.requested_at.desc())
        .limit(3)
    )
    return min(((row.completed_at - row.requested_at).total_seconds() for row in ended), default=0.0)


def use_up(session: Session, binding: CohortBinding) -> None:
    """A new download is wanted: no run may take one for a plan's that was paid for before."""
    unused = select(Snapshot.id).where(
        _downloaded(binding),
        Snapshot.state == SnapshotState.COMPLETED,
        _of_a_plan(binding),
    )
    used_up = update(Snapshot).where(Snapshot.id.in_(unused)).values(upto=0)
    session.execute(used_up.execution_options(synchronize_session=False))


def _downloaded(of: CohortBinding | Snapshot) -> ColumnElement[bool]:
    """The condition for a download of the same cohort, by whichever property."""
    return and_(
        Snapshot.project_id == of.project_id,
        Snapshot.cohort_id == of.cohort_id,
        Snapshot.kind == SnapshotKind.DOWNLOAD,
    )


def _of_a_plan(binding: CohortBinding) -> ColumnElement[bool]:
    """The condition for a snapshot of the binding's cohort that no run has used: a run joins its own at once."""
    return Snapshot.upto.is_(None) & ~exists().where(
        SyncRun.snapshot_id == Snapshot.id,
        SyncRun.binding_id == CohortBinding.id,
        CohortBinding.project_id == binding.project_id,
        CohortBinding.cohort_id == binding.cohort_id,
    )


def join_or_begin(
    session: Session, run: SyncRun, *, now: datetime, fresh: FreshnessPolicy, parallel: int
) -> Snapshot | None:
    """Give the run a snapshot: one that may be shared, or a new one, journalled before it is requested.

    None: not now, because somebody is requesting this very cohort, or `parallel` jobs of the last minute
    are unfinished already. A new snapshot is in the state REQUESTING and costs one download of the month.
    """
    binding = run.binding
    lock(session, f"snapshot:{binding.project_id}")
    # In this order: whose answer comes between the two questions, outside the lock, is found by the second.
    requested = _being_requested(session, binding, now)
    # A base has to be newer than what put the list in doubt.
    found = (
        None
        if run.reconcile is not None
        else shareable(session, binding, run.trigger, due=run.scheduled_for, fresh=fresh)
    )
    if found is None:
        recent = session.scalars(
            select(Snapshot).where(
                Snapshot.project_id == binding.project_id,
                Snapshot.kind == _DOWNLOAD,
                Snapshot.state.in_((SnapshotState.REQUESTING, SnapshotState.REQUESTED)),
                Snapshot.requested_at > now - timedelta(minutes=1),
            )
        ).all()
        if len(recent) >= parallel or requested:
            return None
        spent = spent_this_month(session, binding.project_id, now=now)
        if spent >= binding.project.monthly_quota and not run.force:
            raise ConfigurationError(
                "AMPLITUDE_QUOTA", source=binding.project.name, quota=binding.project.monthly_quota
            )
        found = Snapshot(
            project_id=binding.project_id,
            cohort_id=binding.cohort_id,
            kind=SnapshotKind.DOWNLOAD,
            property=binding.destination.contact_key_property,
            state=SnapshotState.REQUESTING,
            requested_at=now,
        )
        session.add(found)
        session.flush()
    run.snapshot_id = found.id
    return found


def _being_requested(session: Session, binding: CohortBinding, now: datetime) -> bool:
    """Whether an unfinished run, or a plan, is asking for this cohort just now; its answer may be shared."""
    asked = and_(_downloaded(binding), Snapshot.state == SnapshotState.REQUESTING)
    # Few runs are unfinished, so they are looked at first; a cohort's snapshots are a history.
    by_a_run = select(SyncRun.id).where(
        SyncRun.state.in_(UNFINISHED_WORDS), exists().where(Snapshot.id == SyncRun.snapshot_id, asked)
    )
    # Nobody tells whether a plan was killed; no answer takes longer than this.
    by_a_plan = select(Snapshot.id).where(
        asked, Snapshot.requested_at > now - timedelta(minutes=1), _of_a_plan(binding)
    )
    return any(session.scalar(query.limit(1)) is not None for query in (by_a_run, by_a_plan))


def spent_this_month(session: Session, project_id: int, *, now: datetime) -> int:
    """Downloads of the project since the first of the month, UTC: what our own ledger knows."""
    spent = select(func.count()).where(Snapshot.project_id == project_id, spent_since(month_of(now)))
    return session.scalar(spent) or 0


def spent_since(start: datetime) -> ColumnElement[bool]:
    """The condition for a download that counts against a month's quota."""
    return and_(
        Snapshot.kind == _DOWNLOAD, Snapshot.requested_at >= start, Snapshot.state != SnapshotState.FAILED
    )


def month_of(now: datetime) -> datetime:
    """When the month of `now` began, UTC: a quota is a month's."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def require_quota(session: Session, binding: CohortBinding, *, now: datetime, fresh: FreshnessPolicy) -> None:
    """Refuse a run by hand that would ask for a download when the month's are spent."""
    if binding.feed == Feed.WEBHOOK:
        return
    spent, allowed = quota(session, binding.project, now=now)
    if spent >= allowed and shareable(session, binding, Trigger.MANUAL, due=now, fresh=fresh) is None:
        raise ConfigurationError("AMPLITUDE_QUOTA", source=binding.project.name, quota=allowed)


def store_upload(session: Session, binding: CohortBinding, file: BinaryIO, *, now: datetime) -> Snapshot:
    """A cohort file as given, in parts, so that any worker can read it."""
    snapshot = _own(session, binding, SnapshotKind.UPLOAD, now)
    _store_parts(session, snapshot.id, file)
    return snapshot


def uploads(session: Session) -> list[Snapshot]:
    """The uploaded files that are stored: those of runs that have not ended."""
    stored = select(SnapshotPart.snapshot_id).distinct()
    return list(session.scalars(select(Snapshot).where(Snapshot.id.in_(stored)).order_by(Snapshot.id)))


def replace_upload(session: Session, snapshot_id: int, file: BinaryIO) -> None:
    """Store another file in the place of an uploaded one, unless its run has ended."""
    stored = select(SnapshotPart.part).where(SnapshotPart.snapshot_id == snapshot_id).limit(1)
    if session.scalar(stored) is not None:
        forget_upload(session, snapshot_id)
        _store_parts(session, snapshot_id, file)


def _store_parts(session: Session, snapshot_id: int, file: BinaryIO) -> None:
    part = 0
    while data := file.read(UPLOAD_PART_BYTES):
        session.add(SnapshotPart(snapshot_id=snapshot_id, part=part, data=data))
        session.flush()
        part += 1


def of_state(session: Session, binding: CohortBinding, *, now: datetime) -> Snapshot:
    """The binding's own members as a snapshot: its file is made from the state when the run that has it wants it."""
    return _own(session, binding, SnapshotKind.STATE, now)


def of_nobody(session: Session, binding: CohortBinding, *, now: datetime) -> Snapshot:
    """An empty cohort as a snapshot: the full run that has it sets every flag to false."""
    return _own(session, binding, SnapshotKind.CLEAR, now)


def _own(session: Session, binding: CohortBinding, kind: str, now: datetime) -> Snapshot:
    snapshot = Snapshot(
        project_id=binding.project_id,
        cohort_id=binding.cohort_id,
        kind=kind,
        property=binding.destination.contact_key_property,
        state=SnapshotState.COMPLETED,
        requested_at=now,
        completed_at=now,
    )
    session.add(snapshot)
    session.flush()
    return snapshot


def iter_upload(session: Session, snapshot_id: int) -> Iterator[bytes]:
    """The uploaded file, piece by piece."""
    yield from session.scalars(
        select(SnapshotPart.data)
        .where(SnapshotPart.snapshot_id == snapshot_id)
        .order_by(SnapshotPart.part)
        .execution_options(yield_per=1)
    )


def forget_upload(session: Session, snapshot_id: int) -> None:
    """The run has ended: the file is personal data that nobody needs any more."""
    session.execute(delete(SnapshotPart).where(SnapshotPart.snapshot_id == snapshot_id))


def forget_source(session: Session, project_id: int) -> None:
    """The source goes: its ledger with it. Runs of bindings that have moved elsewhere stay, without their snapshot."""
    of_source = select(Snapshot.id).where(Snapshot.project_id == project_id)
    runs = update(SyncRun).where(SyncRun.snapshot_id.in_(of_source)).values(snapshot_id=None)
    session.execute(runs.execution_options(synchronize_session=False))
    session.execute(delete(Snapshot).where(Snapshot.project_id == project_id))


def quota(session: Session, source: AmplitudeProject, *, now: datetime) -> tuple[int, int]:
    """(spent, allowed) of this month."""
    return spent_this_month(session, source.id, now=now), source.monthly_quota
