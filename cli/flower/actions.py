"""What a person may do through Flower: the same for its pages and its API, in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any

from cli import context
from cli.config_file import timing
from config.queue import publish
from config.queue_names import QueueUnavailableError
from models import audit, broker
from models.database import Database
from models.errors import ConfigurationError
from models.membership.snapshots import FreshnessPolicy
from models.naming import find
from models.runs import decisions, manual
from models.setup import bindings
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Trigger

REASON_MAX = 500


@dataclass(frozen=True)
class Asked:
    """Who asks, on which database and queue. `app`: the Celery application that messages are sent with."""

    db: Database
    app: Any
    actor: str
    door: str = audit.API


Change = Callable[[Asked, str, Mapping[str, Any]], CohortBinding | SyncRun]


def run(asked: Asked, binding: str, given: Mapping[str, Any]) -> SyncRun:
    """Make a run, and publish it; it stays queued while the queue is away."""
    _only(given, "queue", "force", "full", "yes", "idempotency_key")
    with asked.db.write() as session:
        made = manual.make(
            session,
            binding,
            fresh=FreshnessPolicy.of(asked.db.settings),
            now=context.now(),
            actor=asked.actor,
            trigger=Trigger.FLOWER,
            approved=given.get("yes", False),
            **{name: value for name, value in given.items() if name != "yes"},
        )
    if made.state == RunState.QUEUED:
        _publish(asked, made)
    return made


def pause(asked: Asked, binding: str, given: Mapping[str, Any]) -> CohortBinding:
    """No scheduled run until it is resumed."""
    reason = _reason(given) or f"paused by {asked.actor}"
    with asked.db.edit() as session:
        return bindings.pause_binding(session, binding, reason=reason, now=context.now(), actor=asked.actor)


def resume(asked: Asked, binding: str, given: Mapping[str, Any]) -> CohortBinding:
    """On with the schedule; what was missed while paused stays missed."""
    _only(given)
    now = context.now()
    with asked.db.edit() as session:
        stored = find(session, CohortBinding, binding)
        planned = timing.timing_of(stored, now) if stored.cron is not None else None
        return bindings.resume_binding(session, binding, timing=planned, now=now, actor=asked.actor)


def cancel(asked: Asked, run_id: str, given: Mapping[str, Any]) -> SyncRun:
    """Stop a run; what was sent is followed to its end."""
    _only(given)
    with asked.db.write() as session:
        row = decisions.cancel(session, run_id, now=context.now(), actor=asked.actor)
    if row.state == RunState.WAITING:
        _publish(asked, row)
    return row


def approve(asked: Asked, run_id: str, given: Mapping[str, Any]) -> SyncRun:
    """Let a held run go on past its guard."""
    reason = _reason(given)
    with asked.db.write() as session:
        row = decisions.approve(session, run_id, reason=reason, now=context.now(), actor=asked.actor)
    _publish(asked, row)
    return row


def reject(asked: Asked, run_id: str, given: Mapping[str, Any]) -> SyncRun:
    """End a held run; nothing is pushed."""
    reason = _reason(given)
    with asked.db.write() as session:
        return decisions.reject(session, run_id, reason=reason, now=context.now(), actor=asked.actor)


def _recorded(change: Change) -> Change:
    """The change, and the door it came by."""

    @wraps(change)
    def through(asked: Asked, name: str, given: Mapping[str, Any]) -> CohortBinding | SyncRun:
        with audit.through(asked.door):
            return change(asked, name, given)

    return through


OF_BINDING = {change.__name__: _recorded(change) for change in (run, pause, resume)}
OF_RUN = {change.__name__: _recorded(change) for change in (cancel, approve, reject)}


def _only(given: Mapping[str, Any], *known: str) -> None:
    for field in given.keys() - set(known):
        hint = f"Give {', '.join(known)} or nothing." if known else "Give nothing."
        raise ConfigurationError("SETTING_INVALID", field=field[:40], value=str(given[field])[:40], hint=hint)


def _reason(given: Mapping[str, Any]) -> str:
    _only(given, "reason")
    reason = given.get("reason", "")
    if not isinstance(reason, str) or len(reason) > REASON_MAX or not reason.isprintable():
        raise ConfigurationError(
            "SETTING_INVALID",
            field="reason",
            value=str(reason)[:40],
            hint=f"Give a line of up to {REASON_MAX} characters.",
        )
    return reason.strip()


def _publish(asked: Asked, row: SyncRun) -> None:
    """A row is published again by the scheduler, so a queue that is away is no failure here."""
    if broker.tells(asked.db.settings, seconds=2.0) is None:  # kombu would try for six seconds
        return
    with suppress(QueueUnavailableError):
        publish(asked.app, row.id, row.stage, binding=row.binding.name)
