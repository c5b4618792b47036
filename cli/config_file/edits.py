"""From the values of settings to the functions of models/ that store them, inside a transaction of the caller.

`binding add`, `binding update` and `apply` come this way, so that a change has the same rules and effects whoever
asks for it. Values are keyed as `cli/config_file/fields.py` keys them; nothing here reads text, commits or prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from cli import context
from cli.config_file import timing
from cli.config_file.fields import BINDING, DESTINATION, SOURCE, Kind
from models.naming import Row
from models.secrets import Keyring
from models.setup import bindings, destinations, sources
from models.setup.bindings import Timing
from models.tables import CohortBinding

NEW_NAME = "new_name"
TARGET = {"source", "cohort_id", "destination", "attribute"}  # what a binding keeps where
_TIMED = {field.name for field in fields(Timing)}
_PERIOD = {"cron", "starts_on", "ends_on"}  # whether anything is left to run depends on these


def add(
    session: Session, keyring: Keyring, kind: Kind, name: str, values: Mapping[str, Any], *, now: datetime
) -> Row:
    """A new one."""
    by: dict[str, Any] = {"now": now, "actor": context.actor()}
    if kind is SOURCE:
        return sources.add_source(session, keyring, name=name, **values, **by)
    if kind is DESTINATION:
        return destinations.add_destination(session, keyring, name=name, **values, **by)
    return add_binding(session, name, values, now=now)


def update(
    session: Session, keyring: Keyring, kind: Kind, row: Row, changed: Mapping[str, Any], *, now: datetime
) -> Row:
    """Change what is given; a value that is none takes the old one away."""
    if isinstance(row, CohortBinding):
        return update_binding(session, row, changed, now=now)
    changed = _said(kind, changed)
    by: dict[str, Any] = {"now": now, "actor": context.actor()}
    if kind is SOURCE:
        return sources.update_source(session, keyring, str(row.id), **changed, **by)
    return destinations.update_destination(session, keyring, str(row.id), **changed, **by)


def remove(session: Session, kind: Kind, row: Row, *, now: datetime) -> None:
    """Refused while others depend on it."""
    by: dict[str, Any] = {"now": now, "actor": context.actor()}
    if kind is SOURCE:
        sources.remove_source(session, str(row.id), **by)
    elif kind is DESTINATION:
        destinations.remove_destination(session, str(row.id), **by)
    else:
        bindings.remove_binding(session, str(row.id), **by)


def add_binding(session: Session, name: str, values: Mapping[str, Any], *, now: datetime) -> CohortBinding:
    """A new binding, with its first occurrence."""
    planned = timing.timing(name, now=now, **{key: values[key] for key in values.keys() & _TIMED})
    timing.require_occurrence(planned)
    rest = {key: value for key, value in values.items() if key not in _TIMED}
    return bindings.add_binding(session, name=name, timing=planned, **rest, now=now, actor=context.actor())


def update_binding(
    session: Session, row: CohortBinding, changed: Mapping[str, Any], *, now: datetime
) -> CohortBinding:
    """A binding with what is changed."""
    timed = {key: changed[key] for key in changed.keys() & _TIMED}
    if changed.get(NEW_NAME) is not None:
        timed["name"] = changed[NEW_NAME]  # `H` and the jitter spread by it
    planned = timing.updated(row, now, **timed) if timed else None
    if planned is not None and timed.keys() & _PERIOD:
        timing.require_occurrence(planned)
    rest = {key: value for key, value in _said(BINDING, changed).items() if key not in _TIMED}
    return bindings.update_binding(
        session, str(row.id), timing=planned, **rest, now=now, actor=context.actor()
    )


def _said(kind: Kind, changed: Mapping[str, Any]) -> dict[str, Any]:
    """As the update functions are told: none means there that nothing is given."""
    nothing = {one.key: one.none for one in kind.settings}
    return {key: nothing.get(key) if value is None else value for key, value in changed.items()}
