"""Rows of the database as JSON documents. Programs read them: keys are only ever added, never renamed or taken away."""

from __future__ import annotations

from datetime import date
from typing import Any

from cli.output import iso
from cli.timeline import Step
from models.observability.cohort_feed import CohortFeed
from models.runs.missed import COUNTED
from models.setup.binding_fields import LIMITS
from models.setup.sources import keys_since
from models.tables import AmplitudeProject, CohortBinding, Destination, SyncRun


def run(row: SyncRun) -> dict[str, Any]:
    """A run. Every command that shows one shows this."""
    return {
        "id": row.id,
        "binding": row.binding.name,
        "trigger": row.trigger,
        "actor": row.actor,
        "full": row.full,
        "state": row.state,
        "stage": row.stage,
        "scheduled_for": iso(row.scheduled_for),
        "missed": missed(row),
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
        "counts": {
            "snapshot_rows": row.snapshot_rows,
            "members": row.members,
            "blank": row.blank,
            "duplicate": row.duplicate,
            "odd": row.odd,
            "spanned": row.spanned,
            "entered": row.entered,
            "exited": row.exited,
            "spared": row.spared,
            "acknowledged": row.acknowledged,
            "rejected": row.rejected,
        },
        "odd_examples": row.odd_examples,
        "requests": {"amplitude": row.amplitude_requests, "marketing_cloud": row.marketing_cloud_requests},
        "error": run_error(row),
        "held_until": iso(row.held_until),
        "held": row.held_facts,
    }


def step(found: Step) -> dict[str, Any]:
    """A stage in a run's timeline: when it was taken, how long workers had it, and what it waited for."""
    return {
        "stage": found.stage,
        "claimed_at": iso(found.claimed_at),
        "claims": found.claims,
        "workers": found.workers,
        "worked_seconds": round(found.worked.total_seconds(), 3),
        "waits": [
            {"for": name, "seconds": round(length.total_seconds(), 3)} for name, _, length in found.waits
        ],
    }


def feed(found: CohortFeed) -> dict[str, Any]:
    """How a webhook feeds a binding."""
    return {
        "binding": found.binding,
        "cohort": found.cohort,
        "last_message": iso(found.last_message),
        "last_complete_sync": iso(found.last_sync),
        "lag_seconds": None if found.lag is None else round(found.lag.total_seconds()),
        "messages": found.messages,
        "refused": found.refused,
        "reconciled_at": iso(found.based_at),
        "doubts": [error.code for error in found.alerts()],
    }


def missed(row: SyncRun) -> dict[str, Any] | None:
    """The occurrences that no run was made for and that are counted here; `more`: there were more than `count`."""
    if not row.missed:
        return None
    return {
        "count": min(row.missed, COUNTED),
        "more": row.missed > COUNTED,
        "since": iso(row.missed_since),
    }


def run_error(row: SyncRun) -> dict[str, Any] | None:
    """What went wrong, or is in the way."""
    if row.error_code is None:
        return None
    return {
        "code": row.error_code,
        "message": row.error_message or "",
        "remedy": row.error_remedy or "",
    }


def source(row: AmplitudeProject) -> dict[str, Any]:
    """A source without its secrets."""
    since = keys_since(row).date()
    return {
        "id": row.id,
        "name": row.name,
        "region": row.region,
        "tier": row.tier,
        "monthly_quota": row.monthly_quota,
        "api_key": _secret(since),
        "secret_key": _secret(since),
        "created_at": iso(row.created_at),
    }


def destination(row: Destination) -> dict[str, Any]:
    """A destination without its secret."""
    found = row.data_extension
    return {
        "id": row.id,
        "name": row.name,
        "subdomain": row.subdomain,
        "client_id": row.client_id,
        "client_secret": _secret(row.client_secret_made_on),
        "account_id": row.account_id,
        "contact_key_property": row.contact_key_property,
        "write_mode": row.write_mode,
        "data_extension": {"id": found.get("id"), "key": found.get("key")} if found else None,
        "resolved_at": iso(row.resolved_at),
        "created_at": iso(row.created_at),
    }


def binding(row: CohortBinding) -> dict[str, Any]:
    """A binding with its names and its schedule."""
    return {
        "id": row.id,
        "name": row.name,
        "source": row.project.name,
        "cohort": row.cohort_id,
        "cohort_name": row.cohort_name,
        "feed": row.feed,
        "destination": row.destination.name,
        "attribute": row.attribute,
        "attribute_locked_at": iso(row.attribute_locked_at),
        "schedule": schedule(row),
        "after": row.after_name,
        "blackouts": row.blackouts.split(",") if row.blackouts else [],
        "starts_on": row.starts_on.isoformat() if row.starts_on else None,
        "ends_on": row.ends_on.isoformat() if row.ends_on else None,
        **{name: getattr(row, name) for name in LIMITS},
        "paused": row.paused,
        "pause_reason": row.pause_reason,
        "members": row.member_count,
        "members_exact": not row.member_count_rough,
        "failures_in_row": row.failures_in_row,
        "created_at": iso(row.created_at),
    }


def schedule(row: CohortBinding) -> dict[str, Any] | None:
    """When it runs; none: on demand."""
    if row.cron is None:
        return None
    return {
        "cron": row.cron,
        "timezone": row.timezone,
        "overlap": row.overlap,
        "catchup": row.catchup,
        "catchup_window_seconds": row.catchup_window_seconds,
        "jitter_seconds": row.jitter_seconds,
        "next_occurrence": iso(row.next_occurrence),
        "next_due_at": iso(row.next_due_at),
    }


def _secret(since: date) -> dict[str, Any]:
    return {"set": True, "since": since.isoformat()}
