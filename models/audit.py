"""Who changed what, when and by which door. Called inside the transaction of the change itself; never given a secret.

The details of an event are settings, each with its old and new value (`{"cron": {"old": …, "new": …}}`; one of the two
where it was added or removed), and facts beside them, such as the run's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from models.errors import NotFoundError
from models.naming import NAME_MAX, Row, name_key
from models.setup.binding_fields import LIMITS
from models.tables import AmplitudeProject, AuditEvent, CohortBinding, Destination

CLI, FILE, FLOWER, API, TASK = "cli", "file", "flower", "api", "task"
PROGRAMS = ("worker", "scheduler")  # actors that are no person, and come through no door
_door: ContextVar[str | None] = ContextVar("door", default=None)

# What a person has set up. Of a client id, which may be a secret by mistake, it is only said that it was changed.
_CONTENT: dict[type[Any], dict[str, str]] = {
    AmplitudeProject: {name: name for name in ("name", "region", "tier", "monthly_quota")},
    Destination: {
        name: name
        for name in (
            "name",
            "subdomain",
            "client_secret_made_on",
            "contact_key_property",
            "account_id",
            "write_mode",
        )
    },
    CohortBinding: {
        "name": "name",
        "source": "project.name",
        "cohort": "cohort_id",
        "destination": "destination.name",
        "after": "after_name",
        **{
            name: name
            for name in (
                "attribute",
                "feed",
                "cron",
                "timezone",
                "overlap",
                "catchup",
                "catchup_window_seconds",
                "jitter_seconds",
                "starts_on",
                "ends_on",
                "blackouts",
                *LIMITS,
                "paused",
                "pause_reason",
            )
        },
    },
}


@contextmanager
def through(door: str) -> Iterator[None]:
    """Whatever is recorded within came by this door."""
    token = _door.set(door)
    try:
        yield
    finally:
        _door.reset(token)


def enter(door: str) -> None:
    """The same for the rest of the process."""
    _door.set(door)


def content(row: Row) -> dict[str, Any]:
    """The settings of a source, destination or binding, without its secrets."""
    return {name: _plain(_value(row, place)) for name, place in _CONTENT[type(row)].items()}


def added(row: Row) -> dict[str, Any]:
    """All of a new one, for `record`."""
    return {name: {"new": value} for name, value in content(row).items() if value not in (None, "")}


def removed(row: Row) -> dict[str, Any]:
    """The last content of one that goes, for `record`."""
    return {name: {"old": value} for name, value in content(row).items() if value not in (None, "")}


def changed(before: dict[str, Any], row: Row) -> dict[str, Any]:
    """What is not as it was in `content` before, for `record`."""
    return {
        name: {"old": before[name], "new": value}
        for name, value in content(row).items()
        if value != before[name]
    }


def record(
    session: Session,
    *,
    now: datetime,
    actor: str,
    action: str,
    kind: str,
    name: str,
    binding_id: int | None = None,
    settings: Mapping[str, Any] | None = None,
    **facts: Any,
) -> None:
    """One line of the log: `actor` did `action` to the `kind` named `name`, which is or is about that binding.

    `settings` are those of `added`, `changed` or `removed`.
    """
    door = None if actor in PROGRAMS else _door.get()
    session.add(
        AuditEvent(
            at=now,
            actor=actor,
            door=door,
            action=action,
            kind=kind,
            name=name,
            binding_id=binding_id,
            details={**(settings or {}), **facts},
        )
    )


def events(
    session: Session,
    *,
    bindings: Sequence[int] | None = None,
    actor: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
) -> list[AuditEvent]:
    """The newest events first, of these bindings, by this actor, from `since` on and before `until`."""
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if bindings is not None:
        query = query.where(AuditEvent.binding_id.in_(bindings))
    if actor is not None:
        query = query.where(AuditEvent.actor == actor)
    if since is not None:
        query = query.where(AuditEvent.at >= since)
    if until is not None:
        query = query.where(AuditEvent.at < until)
    return list(session.scalars(query))


def bindings_named(session: Session, name: str) -> list[int]:
    """The ids of the bindings that have, or had, this name or id: also of one that was removed."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < NAME_MAX else -1
    now = session.scalars(
        select(CohortBinding.id).where(
            or_(CohortBinding.name_key == name_key(name), CohortBinding.id == number)
        )
    )
    once = session.execute(
        select(AuditEvent.binding_id, AuditEvent.name)
        .where(AuditEvent.kind == "binding", AuditEvent.binding_id.is_not(None))
        .distinct()
    )
    found = {*now, *(one for one, old in once if name_key(old) == name_key(name) or one == number)}
    if not found:
        raise NotFoundError("NOT_FOUND", kind="binding", name=name[:NAME_MAX], listing="binding list")
    return sorted(found)


def _value(row: Row, place: str) -> Any:
    found: Any = row
    for name in place.split("."):
        found = getattr(found, name)
    return found


def _plain(value: Any) -> Any:
    """As JSON takes it."""
    return value.isoformat() if isinstance(value, date) else value
