"""A run that somebody asks for now, whichever way: the same rules, and refused in the same words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from sqlalchemy.orm import Session

from models.errors import ConfigurationError
from models.membership import snapshots
from models.membership.snapshots import FreshnessPolicy
from models.naming import find
from models.runs import lifecycle
from models.tables import CohortBinding, Snapshot, SyncRun
from models.types import RunState, Trigger

KEY_MAX = 200
MakeSnapshot: TypeAlias = Callable[[Session, CohortBinding], Snapshot]


def of_state(session: Session, binding: CohortBinding, *, now: datetime, actor: str, full: bool) -> SyncRun:
    """A run whose target is what is stored, to be published after the commit. `full`: as in `make`."""
    stored = snapshots.of_state(session, binding, now=now)
    return _towards(session, binding, stored, now=now, actor=actor, full=full)


def of_nobody(session: Session, binding: CohortBinding, *, now: datetime, actor: str) -> SyncRun:
    """A full run that sets every flag to false, to be published after the commit."""
    nobody = snapshots.of_nobody(session, binding, now=now)
    return _towards(session, binding, nobody, now=now, actor=actor, full=True)


def _towards(
    session: Session, binding: CohortBinding, target: Snapshot, *, now: datetime, actor: str, full: bool
) -> SyncRun:
    return lifecycle.dispatch(
        session,
        binding,
        trigger=Trigger.MANUAL,
        scheduled_for=now,
        now=now,
        snapshot_id=target.id,
        full=full,
        actor=actor,
    )


def make(
    session: Session,
    binding: str,
    *,
    fresh: FreshnessPolicy,
    now: datetime,
    actor: str,
    trigger: Trigger = Trigger.MANUAL,
    queue: bool = False,
    force: bool = False,
    full: bool = False,
    approved: bool = False,
    idempotency_key: str | None = None,
    snapshot: MakeSnapshot | None = None,
    anew: bool | None = None,
) -> SyncRun:
    """A manual run of the binding with this name or id, to be published after the commit if it is queued.

    `snapshot` makes the snapshot, once there is a run, and costs no download. Else `anew` says whether a download of
    the last minutes is used again (False) or none that was made before (True); none: as a scheduled run would.

    `queue`: wait behind an unfinished run instead of being refused; `force`: past the month's quota; `full`: the
    data extension is read first; `approved`: past the guards. A key that was seen before gives the run made then,
    whatever the quota.
    """
    for field, given in (("queue", queue), ("force", force), ("full", full), ("yes", approved)):
        if not isinstance(given, bool):
            raise ConfigurationError(
                "SETTING_INVALID",
                field=field,
                value=str(given)[:40],
                hint="Use true or false; no run was made.",
            )
    if idempotency_key is not None and (
        not isinstance(idempotency_key, str) or not 0 < len(idempotency_key) <= KEY_MAX
    ):
        raise ConfigurationError(
            "SETTING_INVALID",
            field="idempotency_key",
            value=str(idempotency_key)[:40],
            hint=f"Use 1 to {KEY_MAX} characters; no run was made.",
        )
    found = find(session, CohortBinding, binding)
    if (before := lifecycle.known(session, found, idempotency_key)) is not None:
        return before
    reused = None
    if anew:
        snapshots.use_up(session, found)
    elif anew is not None and snapshot is None and not force:
        reused = snapshots.recent(session, found, now=now, fresh=fresh)
    if not force and snapshot is None and reused is None:
        snapshots.require_quota(session, found, now=now, fresh=fresh)
    made = lifecycle.dispatch(
        session,
        found,
        trigger=trigger,
        scheduled_for=now,
        now=now,
        full=full,
        force=force,
        queue=queue,
        approved=approved,
        idempotency_key=idempotency_key,
        actor=actor,
    )
    if snapshot is not None:
        made.snapshot_id = snapshot(session, found).id
    elif reused is not None and made.state == RunState.QUEUED:
        made.snapshot_id = reused.id
    session.flush()
    return made
