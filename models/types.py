"""Column types and the words that stand in columns. No queries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, DateTime, Enum, Integer, literal_column
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

# SQLite counts up only an INTEGER primary key; PostgreSQL's is a bigint.
Id = BigInteger().with_variant(Integer, "sqlite")


def word(kind: type[StrEnum], length: int) -> Enum:
    """A column of at most `length` characters that holds one of the words, and is read as one."""
    return Enum(
        kind, native_enum=False, length=length, values_callable=lambda words: [word.value for word in words]
    )


def literals(words: Iterable[StrEnum]) -> list[ColumnElement[str]]:
    """The words as they stand in a query's text, for `column.in_`.

    A bound parameter hides them from the planner: SQLite uses a partial index only if its condition stands in the
    query word by word, and PostgreSQL only as long as it plans a statement anew for each of its values.
    """
    return [literal_word(word) for word in words]


def literal_word(word: StrEnum) -> ColumnElement[str]:
    """One such word, for `column ==`."""
    return literal_column(f"'{word}'")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant. A naive one is refused; SQLite keeps it as UTC without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To the driver."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime can't be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the driver."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Tier(StrEnum):
    """The plan of an Amplitude project; only Audiences may run on a schedule."""

    GROWTH = "growth"
    ENTERPRISE = "enterprise"
    AUDIENCES = "audiences"


class Region(StrEnum):
    """Where an Amplitude project lives."""

    DEFAULT = "default"
    EU = "eu"


class Feed(StrEnum):
    """How a binding's membership arrives: by download, or by Amplitude's cohort webhook."""

    DOWNLOAD = "download"
    WEBHOOK = "webhook"


class Reconcile(StrEnum):
    """Why a download becomes the base of a webhook's list."""

    ASKED = "asked"
    ITSELF = "itself"  # the list was in doubt, or its base old; counts against a budget


class Trigger(StrEnum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    FLOWER = "flower"  # a page or the API of Flower
    RETRY = "retry"
    CHAIN = "chain"

    @property
    def asked(self) -> bool:
        """Whether somebody asked for the run, and so looks at what becomes of it."""
        return self in ASKED


ASKED = (Trigger.MANUAL, Trigger.FLOWER)


class RunState(StrEnum):
    """Where a run stands; see docs/run.md for the arrows."""

    DEFERRED = "deferred"  # policy `queue`, or asked for: starts when the run before it has ended
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def finished(self) -> bool:
        """Whether the run will never change again."""
        return self not in UNFINISHED and self is not RunState.DEFERRED


# At most one run of a binding is in one of these: a partial unique index says so.
UNFINISHED = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING, RunState.HELD)
UNFINISHED_WORDS = literals(UNFINISHED)


class Stage(StrEnum):
    """The four tasks of a run, in order."""

    SNAPSHOT = "snapshot"
    DIFF = "diff"
    PUSH = "push"
    FINISH = "finish"


class SnapshotKind(StrEnum):
    """Where a snapshot's members come from."""

    DOWNLOAD = "download"
    UPLOAD = "upload"
    WEBHOOK = "webhook"
    STATE = "state"  # what is stored of the binding
    CLEAR = "clear"  # nobody


# They say who is in the cohort at a time; the others are made from what is stored.
OF_THE_COHORT = (SnapshotKind.DOWNLOAD, SnapshotKind.UPLOAD, SnapshotKind.WEBHOOK)


class SnapshotState(StrEnum):
    """A download's life. REQUESTING without a request id means: the answer was never stored."""

    REQUESTING = "requesting"
    REQUESTED = "requested"
    COMPLETED = "completed"
    FAILED = "failed"


class BatchState(StrEnum):
    """A batch's life.

    PLANNED -> SENDING (journalled before the PUT) -> SUBMITTED (request id stored) -> ACKNOWLEDGED.
    A batch of a finished run that was never sent is DROPPED; one whose outcome nobody knows is LOST, until a
    later run has pushed all of its keys anew: then it is SUPERSEDED.
    """

    PLANNED = "planned"
    SENDING = "sending"
    SUBMITTED = "submitted"
    ACKNOWLEDGED = "acknowledged"
    DROPPED = "dropped"
    LOST = "lost"
    SUPERSEDED = "superseded"


# A batch in one of these may be a job at the vendor: it counts for the jobs in flight.
IN_FLIGHT = (BatchState.SENDING, BatchState.SUBMITTED)
IN_FLIGHT_WORDS = literals(IN_FLIGHT)


class WriteMode(StrEnum):
    """How rows are written: by asynchronous jobs, or by synchronous calls where those are not available."""

    ASYNC = "async"
    SYNC = "sync"
