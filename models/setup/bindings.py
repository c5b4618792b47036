"""Cohort bindings, and the rules of the domain that the database alone can enforce.

What a vendor has to say (does the field exist, of what type) is checked in `worker/inspection/check.py`; that a cron
expression is well formed, in `scheduler/cron.py`: both before these functions are called.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import audit
from models.errors import ConfigurationError
from models.membership import webhooks
from models.naming import checked_name, find, name_key
from models.runs import lifecycle, manual, retries
from models.setup import chains
from models.setup.binding_fields import (
    LIMITS,
    attribute_key,
    checked_attribute,
    checked_cohort,
    checked_limit,
    require_own,
)
from models.tables import AmplitudeProject, CohortBinding, Destination, SyncRun
from models.types import UNFINISHED_WORDS, Feed, Tier

REMOVAL = "being removed: its flags are set to false first"


@dataclass(frozen=True)
class Timing:
    """When a binding runs. `next_due_at` is `next_occurrence` plus jitter; both none without a cron."""

    cron: str | None = None
    timezone: str = "UTC"
    next_occurrence: datetime | None = None
    next_due_at: datetime | None = None
    overlap: str = "skip"
    catchup: str = "latest"
    catchup_window_seconds: int = 86_400
    jitter_seconds: int = 0
    starts_on: date | None = None  # the first and the last day with a run, in the zone
    ends_on: date | None = None
    blackouts: str = ""  # `hh:mm-hh:mm` in the zone, comma separated: nothing is pushed then


def add_binding(
    session: Session,
    *,
    name: str,
    source: str,
    cohort_id: str,
    destination: str,
    attribute: str,
    timing: Timing,
    after: str | None = None,
    feed: Feed = Feed.DOWNLOAD,
    now: datetime,
    actor: str,
    **limits: int | None,
) -> CohortBinding:
    """A new binding, refused if the attribute is another's or the plan allows no schedule.

    `limits` are those of its guards, by their columns.
    """
    project = find(session, AmplitudeProject, source)
    target = find(session, Destination, destination)
    if timing.cron or after:
        require_audiences(project)
    attribute = checked_attribute(attribute)
    require_own(session, target, attribute)
    binding = CohortBinding(
        name=checked_name(session, CohortBinding, name),
        name_key=name_key(name),
        project=project,
        cohort_id=checked_cohort(cohort_id),
        feed=feed,
        destination=target,
        attribute=attribute,
        attribute_key=attribute_key(attribute),
        paused=False,
        created_at=now,
        **{field.name: getattr(timing, field.name) for field in fields(timing)},
        **{name: checked_limit(name, limits.get(name)) for name in LIMITS},
    )
    session.add(binding)
    session.flush()
    if after:
        _chain(session, binding, after)
    session.refresh(binding, ["after_name"])
    audit.record(
        session,
        now=now,
        actor=actor,
        action="add",
        kind="binding",
        name=binding.name,
        binding_id=binding.id,
        settings=audit.added(binding),
    )
    return binding


def update_binding(
    session: Session,
    name: str,
    *,
    new_name: str | None = None,
    source: str | None = None,
    cohort_id: str | None = None,
    destination: str | None = None,
    attribute: str | None = None,
    timing: Timing | None = None,
    after: str | None = None,
    feed: Feed | None = None,
    now: datetime,
    actor: str,
    **limits: int | Literal["default"] | None,
) -> CohortBinding:
    """Change what is given; `after` "" ends a chain. Once synced to, what is kept where can't be changed."""
    binding = find(session, CohortBinding, name)
    before = audit.content(binding)
    listened_to = binding.project_id, binding.cohort_id
    changed = _retarget(
        session, binding, source=source, cohort_id=cohort_id, destination=destination, attribute=attribute
    )
    if feed is not None and feed != binding.feed:
        binding.feed = changed["feed"] = feed
    if changed.keys() & {"feed", "source", "cohort"}:
        _listen(session, binding, listened_to, anew="feed" in changed, now=now)
    if timing is not None:
        _retime(session, binding, timing, now=now)
        changed["cron"], changed["timezone"] = timing.cron, timing.timezone
    if after is not None:
        _chain(session, binding, after)
        changed["after"] = after or None
    if changed.keys() & {"source", "cron", "after"} and (binding.cron or binding.after_id is not None):
        require_audiences(binding.project)
    for limit, value in limits.items():
        if value is not None:
            setattr(binding, limit, None if value == "default" else checked_limit(limit, value))
            changed[limit] = value
    if new_name is not None:
        binding.name = changed["new_name"] = checked_name(session, CohortBinding, new_name, but=binding.id)
        binding.name_key = name_key(new_name)
    session.flush()
    session.refresh(binding, ["after_name"])
    if told := audit.changed(before, binding):
        _record(session, binding, "update", now=now, actor=actor, settings=told)
    return binding


def _retarget(
    session: Session,
    binding: CohortBinding,
    *,
    source: str | None,
    cohort_id: str | None,
    destination: str | None,
    attribute: str | None,
) -> dict[str, Any]:
    """Keep another cohort, or keep it elsewhere, as long as nothing was synced; what is changed by that."""
    changed: dict[str, Any] = {}
    if source is not None and (project := find(session, AmplitudeProject, source)) is not binding.project:
        _refuse_if_locked(binding, "source")
        _refuse_if_running(session, binding)
        binding.project, changed["source"] = project, project.name
    if cohort_id is not None and cohort_id.strip() != binding.cohort_id:
        _refuse_if_locked(binding, "cohort")
        binding.cohort_id = changed["cohort"] = checked_cohort(cohort_id)
    if changed:
        binding.cohort_name = None  # of the one before
    target = binding.destination if destination is None else find(session, Destination, destination)
    if target is not binding.destination:
        _refuse_if_locked(binding, "destination")
        _refuse_if_running(session, binding)
        changed["destination"] = target.name
    if attribute is not None and attribute.strip() != binding.attribute:
        _refuse_if_locked(binding, "attribute")
        changed["attribute"] = checked_attribute(attribute)
    if changed.keys() & {"destination", "attribute"}:
        attribute = changed.get("attribute", binding.attribute)
        require_own(session, target, attribute, but=binding.id)
        binding.destination, binding.attribute = target, attribute
        binding.attribute_key = attribute_key(attribute)
    return changed


def name_cohort(session: Session, binding: CohortBinding, name: str | None) -> None:
    """Keep what Amplitude calls the binding's cohort, for a row that is shown after the commit."""
    binding.cohort_name = name
    session.flush()
    session.refresh(binding, ["after_name"])  # an update forgets what SQL computes


def _listen(
    session: Session, binding: CohortBinding, before: tuple[int, str], *, anew: bool, now: datetime
) -> None:
    """Forget the list that nobody reads any more; of `anew`, what an older sync still sends begins no new one."""
    webhooks.forget_unwanted(session, *before)
    if anew and binding.feed == Feed.WEBHOOK:
        webhooks.await_new_sync(session, binding.project_id, binding.cohort_id, now=now)


def _retime(session: Session, binding: CohortBinding, timing: Timing, *, now: datetime) -> None:
    for field in fields(timing):
        setattr(binding, field.name, getattr(timing, field.name))
    lifecycle.wake_from_blackout(session, binding.id, now=now)


def _chain(session: Session, binding: CohortBinding, after: str) -> None:
    """Let it run after the binding of that name; "" ends the chain."""
    chains.follow(session, binding, find(session, CohortBinding, after) if after else None)


def pause_binding(session: Session, name: str, *, reason: str, now: datetime, actor: str) -> CohortBinding:
    """No occurrence becomes a run until it is resumed. A manual run is still allowed."""
    binding = find(session, CohortBinding, name)
    before = audit.content(binding)
    binding.paused, binding.pause_reason = True, reason
    _record(session, binding, "pause", now=now, actor=actor, settings=audit.changed(before, binding))
    session.flush()
    session.refresh(binding, ["after_name"])  # an update forgets what SQL computes
    return binding


def resume_binding(
    session: Session, name: str, *, timing: Timing | None, now: datetime, actor: str
) -> CohortBinding:
    """On with the schedule from `timing`'s next occurrence; what was missed while paused stays missed."""
    binding = find(session, CohortBinding, name)
    before = audit.content(binding)
    binding.paused, binding.pause_reason, binding.failures_in_row = False, None, 0
    retries.forget_of(session, binding.id)
    if timing is not None:
        binding.next_occurrence, binding.next_due_at = timing.next_occurrence, timing.next_due_at
    _record(session, binding, "resume", now=now, actor=actor, settings=audit.changed(before, binding))
    session.flush()
    session.refresh(binding, ["after_name"])  # an update forgets what SQL computes
    return binding


def remove_binding(session: Session, name: str, *, now: datetime, actor: str) -> None:
    """Forget a binding with its state and history. Marketing Cloud's rows stay as they are."""
    binding = _removable(session, name)
    lost = {"members": binding.member_count, "synced": binding.attribute_locked_at is not None}
    _record(session, binding, "remove", now=now, actor=actor, settings=audit.removed(binding), **lost)
    listened_to = binding.project_id, binding.cohort_id
    session.delete(binding)
    webhooks.forget_unwanted(session, *listened_to)


def clear_and_keep(session: Session, name: str, *, now: datetime, actor: str) -> SyncRun | None:
    """Before a removal: pause the binding, so that nothing flags anybody again, and make the run that sets every flag
    to false. None if it has never been synced.
    """
    binding = _removable(session, name)
    if binding.attribute_locked_at is None:
        return None
    pause_binding(session, str(binding.id), reason=REMOVAL, now=now, actor=actor)
    return manual.of_nobody(session, binding, now=now, actor=actor)


def remove_cleared(session: Session, binding_id: int, run_id: int, *, now: datetime, actor: str) -> None:
    """Remove it if that run has succeeded and none has followed."""
    lifecycle.require_newest(session, binding_id, run_id)
    remove_binding(session, str(binding_id), now=now, actor=actor)


def _removable(session: Session, name: str) -> CohortBinding:
    binding = find(session, CohortBinding, name)
    _refuse_if_running(session, binding)
    chains.require_last(session, binding)
    return binding


def _record(
    session: Session, binding: CohortBinding, action: str, *, now: datetime, actor: str, **details: Any
) -> None:
    audit.record(
        session,
        now=now,
        actor=actor,
        action=action,
        kind="binding",
        name=binding.name,
        binding_id=binding.id,
        **details,
    )


def require_audiences(project: AmplitudeProject) -> None:
    """A schedule needs the Audiences tier; Growth and Enterprise cohorts sync on demand only."""
    if project.tier != Tier.AUDIENCES:
        raise ConfigurationError("PLAN_ON_DEMAND_ONLY", source=project.name, tier=project.tier)


def _refuse_if_locked(binding: CohortBinding, field: str) -> None:
    if binding.attribute_locked_at is not None:
        raise ConfigurationError(
            "ATTRIBUTE_LOCKED", binding=binding.name, attribute=binding.attribute, field=field
        )


def _refuse_if_running(session: Session, binding: CohortBinding) -> None:
    unfinished = session.scalar(
        select(SyncRun).where(SyncRun.binding_id == binding.id, SyncRun.state.in_(UNFINISHED_WORDS))
    )
    if unfinished is not None:
        raise ConfigurationError(
            "RUN_UNFINISHED", binding=binding.name, run=unfinished.id, state=unfinished.state
        )
