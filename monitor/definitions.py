"""What is measured, by name: every metric with its type, its labels and a sentence.

The names are a promise to dashboards and alert rules. `models/observability/metric_queries.py` reads the values and
`monitor/metrics.py` fills them in; the table in docs/monitoring.md is made from this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Metric

PREFIX = "cohort_sync_"


@dataclass(frozen=True)
class Family:
    """One metric. A counter's name ends in `_total`; a histogram's series carry their own endings."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...]

    def metric(self) -> Metric:
        """Without a sample."""
        return Metric(self.name.removesuffix("_total"), self.meaning, self.kind)


FAMILIES: list[Family] = []


def _family(kind: str, name: str, meaning: str, *labels: str) -> Family:
    FAMILIES.append(Family(PREFIX + name, kind, meaning, labels))
    return FAMILIES[-1]


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return _family("gauge", name, meaning, *labels)


# the whole
BUILD = _gauge("build_info", "Always 1; the version of the monitor.", "version")
PROBLEM = _gauge(
    "problem", "1 while it is so: an error code of `docs/errors.md`. Every code is there, always.", "code"
)
NEEDS = _gauge("needs", "What needs a person, as `cohort-sync status` lists it, counted by code.", "code")
SCHEDULERS = _gauge("schedulers", "Schedulers with a sign of life within 30 s; none while the queue is away.")
QUEUE = _gauge("queue_messages", "Messages that wait for a worker.", "queue")

# work
UNFINISHED = _gauge(
    "runs_unfinished",
    "Runs that have not ended; `held` ones wait for a person, `deferred` ones for a run.",
    "state",
)
UNCLAIMED = _gauge("runs_unclaimed", "Runs that no worker takes, though it is their time.")
UNCLAIMED_AGE = _gauge("runs_unclaimed_oldest_age_seconds", "How long the oldest of them has waited, or 0.")
IN_HAND = _gauge("runs_in_hand", "Runs that a worker is at.")
BINDINGS = _gauge("bindings", "All bindings.")
PAUSED = _gauge("bindings_paused", "Bindings that are paused.")
SCHEDULED = _gauge("bindings_scheduled", "Bindings with a next occurrence, paused ones aside.")
OVERDUE = _gauge("bindings_overdue", "Bindings that were due more than 2 minutes ago and got no run.")
OVERDUE_AGE = _gauge("bindings_overdue_oldest_age_seconds", "How long the oldest of them is overdue, or 0.")
LEFT_OUT = _gauge("bindings_left_out", "Bindings without series of their own: there are too many.")

# accounts
SPENT = _gauge("source_downloads_spent", "Cohort downloads of this month (UTC).", "source")
QUOTA = _gauge("source_downloads_quota", "Cohort downloads that a month allows.", "source")
SECRET_AGE = _gauge(
    "destination_client_secret_age_seconds", "Age of the client secret, in whole days.", "destination"
)

# each binding
INFO = _gauge(
    "binding_info", "Always 1; what the binding joins.", "binding", "source", "destination", "attribute"
)
MEMBERS = _gauge("binding_members", "Members that Marketing Cloud acknowledged.", "binding")
BINDING_PAUSED = _gauge("binding_paused", "1 while it is paused.", "binding")
HELD = _gauge("binding_held", "1 while a run of it waits for a person's approval.", "binding")
FAILURES = _gauge(
    "binding_consecutive_failures", "Failed occurrences in a row; retries count once.", "binding"
)
CREATED = _gauge("binding_created_timestamp_seconds", "When it was added.", "binding")
NEXT_DUE = _gauge(
    "binding_next_due_timestamp_seconds",
    "Its next occurrence; none if paused or without a schedule.",
    "binding",
)
SUCCESS = _gauge("binding_last_success_timestamp_seconds", "The end of its last `succeeded` run.", "binding")
LAST_STATE = _gauge(
    "binding_last_run_state",
    "1 for the state its last run ended in, 0 for the others; skipped ones aside.",
    "binding",
    "state",
)
LAST_END = _gauge("binding_last_run_finished_timestamp_seconds", "The end of that run.", "binding")
LAST_DURATION = _gauge("binding_last_run_duration_seconds", "From its first claim to its end.", "binding")
LAST_ACKNOWLEDGED = _gauge("binding_last_run_rows_acknowledged", "Rows that Marketing Cloud took.", "binding")
LAST_REJECTED = _gauge("binding_last_run_rows_rejected", "Rows that it refused.", "binding")
LAST_ENTERED = _gauge("binding_last_run_entered", "Members that entered the cohort.", "binding")
LAST_EXITED = _gauge("binding_last_run_exited", "Members that left it.", "binding")

# each binding that a webhook feeds; the first two are 0 for the others
IN_DOUBT = _gauge(
    "binding_list_in_doubt",
    "1 while what the webhook delivered can't be trusted; `needs` has the code.",
    "binding",
)
SILENT = _gauge("binding_feed_silent", "1 while Amplitude has stopped sending.", "binding")
LAST_MESSAGE = _gauge("binding_feed_last_message_timestamp_seconds", "When its last message came.", "binding")
LAST_SYNC = _gauge(
    "binding_feed_last_sync_timestamp_seconds", "When its last complete sync was computed.", "binding"
)
LAG = _gauge("binding_feed_lag_seconds", "How long ago that was.", "binding")
MESSAGES = _family("counter", "binding_feed_messages_total", "Messages stored about its cohort.", "binding")
REFUSED = _gauge("binding_feed_refused", "Messages refused in the last 30 days.", "binding")

# since this process began
FINISHED = _family("counter", "runs_finished_total", "Runs that ended.", "trigger", "state")
ACKNOWLEDGED = _family("counter", "rows_acknowledged_total", "Rows of those runs that Marketing Cloud took.")
REJECTED = _family("counter", "rows_rejected_total", "Rows of those runs that it refused.")
DURATION = _family("histogram", "run_duration_seconds", "From a run's first claim to its end.")
