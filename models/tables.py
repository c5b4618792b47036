"""The tables: SQLite embedded, PostgreSQL in production, the same columns on both.

Two sentences carry the design. *The run row is the truth; a Celery message is a wake-up.* *Stored members
mean "Marketing Cloud acknowledged this"*: the state of a binding is its chunks of the current generation with the
acknowledged, not yet folded batches applied in the order of their ids.
"""

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    Boolean,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    select,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from models.direction import Direction
from models.types import (
    UNFINISHED,
    BatchState,
    Feed,
    Id,
    Reconcile,
    Region,
    RunState,
    SnapshotKind,
    SnapshotState,
    Stage,
    Tier,
    Trigger,
    UtcDateTime,
    WriteMode,
    word,
)

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
_UNFINISHED_SQL = "state IN ({})".format(", ".join(f"'{state}'" for state in UNFINISHED))


def _where(sqlite: str, postgresql: str = "") -> dict[str, dict[str, str]]:
    """The rows of a partial index. Not as `sqlite_where` and `postgresql_where`: either would load all drivers' modules
    of its dialect, 20 ms for PostgreSQL's, in every command; `models/migrations/env.py` says them to Alembic.
    """
    return {"where": {"sqlite": sqlite, "postgresql": postgresql or sqlite}}


class Base(DeclarativeBase):
    """Root of the tables."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        bytes: LargeBinary,
        str: String,
    }


class AmplitudeProject(Base):
    """A source: one Amplitude project and its key pair. Secrets are Fernet tokens, never in `repr`."""

    __tablename__ = "amplitude_project"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)  # the name without case
    region: Mapped[Region] = mapped_column(word(Region, 20))
    tier: Mapped[Tier] = mapped_column(word(Tier, 20))
    api_key_token: Mapped[bytes]
    secret_key_token: Mapped[bytes]
    # What Amplitude's webhook proves itself with; none: nobody may deliver for this source.
    webhook_secret_token: Mapped[bytes | None]
    webhook_secret_at: Mapped[datetime | None]
    # The one before it, taken as well until then: a rotation loses no message.
    webhook_old_secret_token: Mapped[bytes | None]
    webhook_old_secret_until: Mapped[datetime | None]
    keys_set_at: Mapped[datetime | None]  # none: never since it was added
    monthly_quota: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]


class Destination(Base):
    """A Marketing Cloud business unit and the data extension found there."""

    __tablename__ = "destination"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)
    subdomain: Mapped[str] = mapped_column(String(100))
    client_id: Mapped[str] = mapped_column(String(200))
    client_secret_token: Mapped[bytes]
    client_secret_made_on: Mapped[date] = mapped_column(Date)
    account_id: Mapped[str | None] = mapped_column(String(40))
    contact_key_property: Mapped[str] = mapped_column(String(400))
    write_mode: Mapped[WriteMode] = mapped_column(
        word(WriteMode, 10), default=WriteMode.ASYNC, server_default="async"
    )
    # The data extension as it was last resolved by its name: {"id", "key", "fields": [...]}
    data_extension: Mapped[dict[str, Any] | None]
    resolved_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class CohortBinding(Base):
    """One cohort kept flagged in one attribute of one destination."""

    __tablename__ = "cohort_binding"
    __table_args__ = (
        # Two cohorts of one destination can never share an attribute, whatever its case.
        UniqueConstraint("destination_id", "attribute_key"),
        Index(
            "ix_cohort_binding_due",
            "next_due_at",
            info=_where("next_due_at IS NOT NULL AND paused = 0", "next_due_at IS NOT NULL AND NOT paused"),
        ),
        # What needs a person is found without a look at all the others.
        Index(
            "ix_cohort_binding_paused",
            "id",
            info=_where("paused = 1", "paused"),
        ),
        Index(
            "ix_cohort_binding_bad_run",
            "bad_run_id",
            info=_where("bad_run_id IS NOT NULL"),
        ),
        Index(
            "ix_cohort_binding_webhook",
            "project_id",
            "cohort_id",
            info=_where("feed = 'webhook'"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    name_key: Mapped[str] = mapped_column(String(400), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("amplitude_project.id"), index=True)
    cohort_id: Mapped[str] = mapped_column(String(100))
    cohort_name: Mapped[str | None] = mapped_column(String(200))  # what Amplitude calls it; for people alone
    feed: Mapped[Feed] = mapped_column(word(Feed, 10), default=Feed.DOWNLOAD, server_default=Feed.DOWNLOAD)
    destination_id: Mapped[int] = mapped_column(ForeignKey("destination.id"))
    attribute: Mapped[str] = mapped_column(String(200))
    attribute_key: Mapped[str] = mapped_column(String(800))
    attribute_locked_at: Mapped[datetime | None]

    cron: Mapped[str | None] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(60))
    overlap: Mapped[str] = mapped_column(String(10))
    catchup: Mapped[str] = mapped_column(String(10))
    catchup_window_seconds: Mapped[int]
    jitter_seconds: Mapped[int]
    starts_on: Mapped[date | None] = mapped_column(Date)  # the first and last day with a run, in its zone
    ends_on: Mapped[date | None] = mapped_column(Date)
    # `hh:mm-hh:mm` in its zone, comma separated: nothing is pushed then.
    blackouts: Mapped[str] = mapped_column(String(400), default="", server_default=text("''"))
    # It also runs after each good run of that binding.
    after_id: Mapped[int | None] = mapped_column(ForeignKey("cohort_binding.id"), index=True)
    # The guards (worker/stages/guards/change_guard.py); none: the default one.
    max_removal_percent: Mapped[int | None]
    max_growth_percent: Mapped[int | None]
    max_first_sync: Mapped[int | None]
    max_blank_percent: Mapped[int | None]
    max_duplicate_percent: Mapped[int | None]
    max_deviation_percent: Mapped[int | None]
    paused: Mapped[bool] = mapped_column(Boolean)
    pause_reason: Mapped[str | None] = mapped_column(Text)
    next_due_at: Mapped[datetime | None]  # the nominal occurrence plus jitter; none: not scheduled
    next_occurrence: Mapped[datetime | None]  # the nominal occurrence itself: the run's identity
    failures_in_row: Mapped[int] = mapped_column(default=0)  # retries of one occurrence count once
    # The run that ended last, if it failed or was partial; a skipped one is no result.
    bad_run_id: Mapped[int | None] = mapped_column(Id)

    member_count: Mapped[int] = mapped_column(default=0)
    # The count may be off: members are pushed anew, and batches don't say which. Until the next diff or fold.
    member_count_rough: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    state_generation: Mapped[int] = mapped_column(default=0)
    # Of the last snapshot that was acknowledged to the last row; an equal one needs no diff.
    confirmed_digest: Mapped[str | None] = mapped_column(String(80))
    # A submission whose answer was lost may be executed until then: nothing that contradicts it is sent.
    quiet_until: Mapped[datetime | None]
    # What is stored may be older than the data extension, as after a restore: the next run has to be a full one.
    full_next: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    created_at: Mapped[datetime]

    project: Mapped[AmplitudeProject] = relationship(lazy="joined", innerjoin=True)
    destination: Mapped[Destination] = relationship(lazy="joined", innerjoin=True)
    if TYPE_CHECKING:
        after_name: Mapped[str | None]

    @property
    def cohort_shown(self) -> str:
        """The cohort for a person: Amplitude's name for it, if that is known, and its id."""
        return f"{self.cohort_name} ({self.cohort_id})" if self.cohort_name else self.cohort_id

    @property
    def members_shown(self) -> str:
        """The member count for a person: `12,000`, or `about 12,000` where it may be off."""
        return f"about {self.member_count:,}" if self.member_count_rough else f"{self.member_count:,}"


_before = CohortBinding.__table__.alias()
CohortBinding.after_name = column_property(
    select(_before.c.name).where(_before.c.id == CohortBinding.after_id).scalar_subquery()
)


class Snapshot(Base):
    """A cohort's membership at one time: a download (the ledger of what was spent), an uploaded file, what
    Amplitude's webhook had told by then, or the members that a binding has anyway.
    """

    __tablename__ = "snapshot"
    __table_args__ = (
        Index("ix_snapshot_cohort", "project_id", "cohort_id", "requested_at"),
        # What was spent: a binding fed by webhook has a row here for every run.
        Index(
            "ix_snapshot_download",
            "project_id",
            "requested_at",
            info=_where("kind = 'download'"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("amplitude_project.id"))
    cohort_id: Mapped[str] = mapped_column(String(100))
    kind: Mapped[SnapshotKind] = mapped_column(word(SnapshotKind, 10))
    property: Mapped[str] = mapped_column(String(400))
    state: Mapped[SnapshotState] = mapped_column(word(SnapshotState, 20), default=SnapshotState.REQUESTING)
    request_id: Mapped[str | None] = mapped_column(String(100))
    requested_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    rows: Mapped[int | None]
    digest: Mapped[str | None] = mapped_column(String(80))
    # webhook: the last message that it holds; a download that became a list's base: the last one known by then
    upto: Mapped[int | None] = mapped_column(Id)


class SnapshotPart(Base):
    """A piece of an uploaded cohort file, so that any worker on any machine can read it."""

    __tablename__ = "snapshot_part"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshot.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class SyncRun(Base):
    """One sync of one binding. A guarded update moves it; a constraint, not a check, prevents doubles."""

    __tablename__ = "sync_run"
    __table_args__ = (
        UniqueConstraint("binding_id", "scheduled_for", "trigger"),
        UniqueConstraint("binding_id", "idempotency_key"),
        Index(
            "uq_sync_run_unfinished",
            "binding_id",
            unique=True,
            info=_where(_UNFINISHED_SQL),
        ),
        Index(
            "uq_sync_run_deferred",
            "binding_id",
            unique=True,
            info=_where("state = 'deferred'"),
        ),
        # What the scheduler looks at: nothing that has finished.
        Index(
            "ix_sync_run_open",
            "state",
            "published_at",
            "wake_at",
            info=_where("finished_at IS NULL"),
        ),
        Index("ix_sync_run_history", "binding_id", "id"),
        # Whether somebody has used a download; and its foreign key.
        Index(
            "ix_sync_run_snapshot",
            "snapshot_id",
            "binding_id",
            info=_where("snapshot_id IS NOT NULL"),
        ),
        Index("uq_sync_run_retry", "retry_of", "retry", unique=True),
        Index(
            "ix_sync_run_slot",
            "slot_wanted",
            info=_where("slot_wanted IS NOT NULL"),
        ),
        Index(
            "ix_sync_run_wake",
            "wake_at",
            info=_where("state = 'waiting'"),
        ),
        Index(
            "ix_sync_run_retry_at",
            "retry_at",
            info=_where("retry_at IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    binding_id: Mapped[int] = mapped_column(ForeignKey("cohort_binding.id", ondelete="CASCADE"))
    trigger: Mapped[Trigger] = mapped_column(word(Trigger, 10))
    scheduled_for: Mapped[datetime]
    # Occurrences that no run was made for, from `missed_since` on: those before this one, with this one in a row that
    # was skipped because of it (models/runs/missed.py).
    missed: Mapped[int] = mapped_column(default=0, server_default="0")
    missed_since: Mapped[datetime | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    full: Mapped[bool] = mapped_column(Boolean, default=False)
    force: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())  # past the quota
    # The nth retry of the run `retry_of`; after a failure, when the scheduler is to make the next one.
    retry: Mapped[int] = mapped_column(default=0, server_default="0")
    retry_of: Mapped[int | None] = mapped_column(Id)
    retry_at: Mapped[datetime | None]
    state: Mapped[RunState] = mapped_column(word(RunState, 10), default=RunState.QUEUED)
    stage: Mapped[Stage] = mapped_column(word(Stage, 10), default=Stage.SNAPSHOT)
    fence: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    wake_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    # The data extension of which a waiting run wants a slot: woken when one is free, at `wake_at` if it has one, too.
    slot_wanted: Mapped[str | None] = mapped_column(String(60))
    attempt: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    approved: Mapped[bool] = mapped_column(Boolean, default=False)
    held_until: Mapped[datetime | None]  # a held run nobody decides about ends then
    held_facts: Mapped[dict[str, Any] | None]  # what a guard saw: numbers and masked keys
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshot.id"))
    # A download becomes the base of the webhook's list: because a person asked, or by itself (`Reconcile`).
    reconcile: Mapped[Reconcile | None] = mapped_column(word(Reconcile, 10))

    snapshot_rows: Mapped[int] = mapped_column(default=0)
    members: Mapped[int] = mapped_column(default=0)
    blank: Mapped[int] = mapped_column(default=0)
    duplicate: Mapped[int] = mapped_column(default=0)
    entered: Mapped[int] = mapped_column(default=0)
    exited: Mapped[int] = mapped_column(default=0)
    acknowledged: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    # What is odd about the snapshot: rows with a key that no person has, some of them masked, and lines within quotes;
    # and the exits that were not sent because a collation may take their key for a member's.
    odd: Mapped[int] = mapped_column(default=0, server_default="0")
    odd_examples: Mapped[str | None] = mapped_column(String(200))
    spanned: Mapped[int] = mapped_column(default=0, server_default="0")
    spared: Mapped[int] = mapped_column(default=0, server_default="0")
    amplitude_requests: Mapped[int] = mapped_column(default=0)
    marketing_cloud_requests: Mapped[int] = mapped_column(default=0)
    digest: Mapped[str | None] = mapped_column(String(80))
    actor: Mapped[str | None] = mapped_column(String(100))  # who asked for it; none: nobody, it was due

    error_code: Mapped[str | None] = mapped_column(String(40))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_remedy: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    binding: Mapped[CohortBinding] = relationship(lazy="joined", innerjoin=True)
    snapshot: Mapped[Snapshot | None] = relationship(lazy="joined")


class StageClaim(Base):
    """A worker's hold on a run at one stage, and how it left the run. The timeline of a run is made of these."""

    __tablename__ = "stage_claim"

    run_id: Mapped[int] = mapped_column(ForeignKey("sync_run.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[Stage] = mapped_column(word(Stage, 10))
    worker: Mapped[str | None] = mapped_column(String(100))  # the Celery worker's name
    claimed_at: Mapped[datetime]
    left_at: Mapped[datetime | None]  # none: at work, or its worker is gone
    left: Mapped[str | None] = mapped_column(String(10))  # the run's next stage, or the state it was left in
    code: Mapped[str | None] = mapped_column(String(40))  # the error it was left with


class PushBatch(Base):
    """A batch of one direction, journalled before it is sent. Acknowledged ones are the delta log."""

    __tablename__ = "push_batch"
    __table_args__ = (
        UniqueConstraint("run_id", "seq"),
        Index("ix_push_batch_state", "binding_id", "state", "id"),
        Index("ix_push_batch_run", "run_id", "state", "seq"),
        # The log of a binding's state: what is folded into a generation is not read again. All columns that are asked
        # for, though two have one value: with fewer SQLite takes the index of all states.
        Index(
            "ix_push_batch_log",
            "binding_id",
            "state",
            "folded_generation",
            "id",
            info=_where("state = 'acknowledged' AND folded_generation IS NULL"),
        ),
        Index(
            "ix_push_batch_flying",
            "data_extension_id",
            "sent_at",
            info=_where("state IN ('sending', 'submitted')"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("sync_run.id", ondelete="CASCADE"))
    binding_id: Mapped[int] = mapped_column(ForeignKey("cohort_binding.id", ondelete="CASCADE"))
    data_extension_id: Mapped[str] = mapped_column(String(60))  # jobs in flight are counted by it
    seq: Mapped[int]
    direction: Mapped[Direction] = mapped_column(word(Direction, 10))
    n: Mapped[int]
    state: Mapped[BatchState] = mapped_column(word(BatchState, 20), default=BatchState.PLANNED)
    attempts: Mapped[int] = mapped_column(default=0)
    polls: Mapped[int] = mapped_column(default=0)
    request_id: Mapped[str | None] = mapped_column(String(100))
    sent_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]  # not to be sent, or not to be polled, before
    acknowledged_at: Mapped[datetime | None]
    folded_generation: Mapped[int | None]  # the generation that holds it; none: still part of the log
    # Compressed keys; once acknowledged, those of the accepted rows alone. The last column: SQLite reads past it
    # for any column behind it (8 ms a look at a run of 80 batches).
    keys: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    # Rows that leave, and that the full run has read back as not flagged. Behind `keys`, so read only where rows are
    # refused or parted.
    unflagged: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false(), deferred=True)


class MemberChunk(Base):
    """A part of a binding's compacted members, sorted by comparison key."""

    __tablename__ = "member_chunk"

    binding_id: Mapped[int] = mapped_column(
        ForeignKey("cohort_binding.id", ondelete="CASCADE"), primary_key=True
    )
    generation: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    keys: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)


class CohortList(Base):
    """A cohort's members as Amplitude's webhook told them, by one property: its parts of the current generation
    with the messages after them applied in order. It says nothing of what Marketing Cloud has.
    """

    __tablename__ = "cohort_list"
    __table_args__ = (
        UniqueConstraint("project_id", "cohort_id", "property"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("amplitude_project.id", ondelete="CASCADE"))
    cohort_id: Mapped[str] = mapped_column(String(100))
    property: Mapped[str] = mapped_column(String(400))
    # Whether it began with the cohort's first message: a list that began later knows changes alone.
    complete: Mapped[bool] = mapped_column(Boolean)
    generation: Mapped[int] = mapped_column(default=0)
    members: Mapped[int] = mapped_column(default=0)  # of the parts
    blank: Mapped[int] = mapped_column(default=0)  # folded: who entered without the property, less who left
    forgotten_through: Mapped[int | None] = mapped_column(Id)  # computed_time of the newest message removed
    forgotten: Mapped[int] = mapped_column(default=0, server_default="0")  # messages removed
    # A download took the place of everything that was computed before; and which one, so that it does so once.
    based_at: Mapped[int | None] = mapped_column(Id)
    base_snapshot_id: Mapped[int | None] = mapped_column(Id)
    # Whether the sync before the base is known to have succeeded: else the next one tells a difference to nobody knows
    # which membership.
    anchored: Mapped[bool] = mapped_column(Boolean, default=True, server_default=true())
    # The last sync that anything was heard of before the base: only a later one shows what the base can be added to.
    anchored_after: Mapped[int | None] = mapped_column(Id)
    # The list was forgotten so that a new sync begins it: what was computed before is refused.
    refuse_before: Mapped[int | None] = mapped_column(Id)
    # Whether it can be trusted (models/membership/list_trust.py): the computed_time at which its size was the
    # cohort's, the last message whose keys were looked at, and what the last look found: {code: facts}.
    proven_at: Mapped[int | None] = mapped_column(Id)
    judged_id: Mapped[int] = mapped_column(Id, default=0, server_default="0")
    doubts: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    # The cohort's size by Amplitude's list of cohorts, when it was computed, and when it was asked for.
    size: Mapped[int | None]
    size_computed_at: Mapped[datetime | None]
    size_asked_at: Mapped[datetime | None]
    # When Amplitude's last sync to a webhook failed, unless one has succeeded since; and the failure that a base
    # has made good.
    sync_failed_at: Mapped[datetime | None]
    overtaken_failure_at: Mapped[datetime | None]
    # When the last message came, and the longest pause between the last syncs: kept longer than messages are.
    heard_at: Mapped[datetime | None]
    pause_seconds: Mapped[int | None]
    created_at: Mapped[datetime]


class CohortListPart(Base):
    """A part of a list's compacted members, sorted by comparison key."""

    __tablename__ = "cohort_list_part"

    list_id: Mapped[int] = mapped_column(ForeignKey("cohort_list.id", ondelete="CASCADE"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    keys: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)


class WebhookMessage(Base):
    """What one message said about one list. A folded one is kept a while, for messages that come after it late."""

    __tablename__ = "webhook_message"
    __table_args__ = (
        UniqueConstraint("list_id", "message_id"),
        Index("ix_webhook_message_order", "list_id", "computed_time"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    list_id: Mapped[int] = mapped_column(ForeignKey("cohort_list.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(String(200))
    in_cohort: Mapped[bool] = mapped_column(Boolean)
    computed_time: Mapped[int] = mapped_column(Id)  # microseconds since 1970
    received_at: Mapped[datetime]
    n: Mapped[int]
    blank: Mapped[int]
    keys: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    folded: Mapped[bool] = mapped_column(Boolean, default=False)


class WebhookRefusal(Base):
    """A message that a receiver refused: one row a message and reason. Nothing of its users is kept."""

    __tablename__ = "webhook_refusal"
    __table_args__ = (
        UniqueConstraint("project_id", "cohort_id", "message_id", "code"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("amplitude_project.id", ondelete="CASCADE"))
    cohort_id: Mapped[str] = mapped_column(String(100))
    message_id: Mapped[str] = mapped_column(String(200))
    code: Mapped[str] = mapped_column(String(40))
    count: Mapped[int] = mapped_column(default=1)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class Rejection(Base):
    """A row that Marketing Cloud refused, with its reason. The next run tries it again by itself."""

    __tablename__ = "rejection"
    __table_args__ = (
        UniqueConstraint("binding_id", "comparison_key", "direction"),
        Index("ix_rejection_run", "run_id"),
        Index("ix_rejection_last_seen", "last_seen"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    binding_id: Mapped[int] = mapped_column(ForeignKey("cohort_binding.id", ondelete="CASCADE"))
    run_id: Mapped[int] = mapped_column(ForeignKey("sync_run.id", ondelete="CASCADE"))
    direction: Mapped[Direction] = mapped_column(word(Direction, 10))
    code: Mapped[str] = mapped_column(String(60))
    message: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    comparison_key: Mapped[str] = mapped_column(Text)
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]
    count: Mapped[int] = mapped_column(default=1)


class AuditEvent(Base):
    """Who changed what, when. Values never hold a secret."""

    __tablename__ = "audit_event"
    __table_args__ = (
        Index("ix_audit_event_binding", "binding_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(100))
    door: Mapped[str | None] = mapped_column(String(20))  # which way it came: models/audit.py
    action: Mapped[str] = mapped_column(String(60))
    kind: Mapped[str] = mapped_column(String(30))
    name: Mapped[str] = mapped_column(String(100))
    details: Mapped[dict[str, Any]]
    binding_id: Mapped[int | None] = mapped_column(Id)  # no foreign key: the event outlives the binding


class ForgottenContact(Base):
    """A person who was erased: a keyed hash, so that nothing of them is stored again. It names nobody."""

    __tablename__ = "forgotten_contact"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(100))
    removed_at: Mapped[datetime | None]  # none: something of them may still be stored
    leaving: Mapped[bool] = mapped_column(Boolean)  # runs still set their flags to false


class ErasureKey(Base):
    """The key of those hashes, encrypted like every secret. There is one."""

    __tablename__ = "erasure_key"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    token: Mapped[bytes]


class Notice(Base):
    """Something that needed a person: when it began, what it was when it was last seen, and when it was over."""

    __tablename__ = "notice"
    __table_args__ = (
        # Any number of monitors may look at once: a need has one open notice.
        Index(
            "uq_notice_open",
            "kind",
            "subject",
            "code",
            unique=True,
            info=_where("ended_at IS NULL"),
        ),
        Index("ix_notice_ended_at", "ended_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    # What it is about, whatever its name: a binding, run, destination, source or channel and its id, or a part of
    # ours (the queue, the scheduler, the workers), of which there is one: 0.
    kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[int] = mapped_column(Id)
    about: Mapped[str] = mapped_column(String(400))
    code: Mapped[str] = mapped_column(String(40))
    message: Mapped[str] = mapped_column(Text)
    remedy: Mapped[str] = mapped_column(Text)
    began_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]  # the first look that did not find it; none: the last look did
    ended_at: Mapped[datetime | None]


class NoticeChannel(Base):
    """A URL of the settings that people are told through, known here by a keyed hash. It has one sender at a time."""

    __tablename__ = "notice_channel"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(300))  # scheme and host, for people
    fence: Mapped[int] = mapped_column(default=0)  # the number of its last message
    claimed_until: Mapped[datetime | None]
    next_at: Mapped[datetime | None]  # no message before
    attempts: Mapped[int] = mapped_column(default=0)  # that failed, in a row
    failing_since: Mapped[datetime | None]


class NoticeDelivery(Base):
    """What one channel was told of one notice. Journalled before the message is sent, like everything that leaves."""

    __tablename__ = "notice_telling"
    __table_args__ = (
        Index(
            "ix_notice_telling_open",
            "channel_id",
            "fence",
            info=_where("over_at IS NULL"),
        ),
    )

    notice_id: Mapped[int] = mapped_column(ForeignKey("notice.id", ondelete="CASCADE"), primary_key=True)
    channel_id: Mapped[int] = mapped_column(
        ForeignKey("notice_channel.id", ondelete="CASCADE"), primary_key=True
    )
    fence: Mapped[int]  # the channel's message that it stands in
    ending: Mapped[bool] = mapped_column(Boolean)  # whether that message tells the end
    told_at: Mapped[datetime | None]  # none: it was tried, and may have arrived
    reminded_at: Mapped[datetime | None]
    over_at: Mapped[datetime | None]  # when the end was told
    given_up_at: Mapped[datetime | None]


class SchemaFloor(Base):
    """The oldest schema whose release may work with this database (models/schema.py). There is one."""

    __tablename__ = "schema_floor"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    oldest: Mapped[str] = mapped_column(String(10))
