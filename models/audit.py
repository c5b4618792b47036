"""Who changed what, when. Called inside the transaction of the change itself; never given a secret."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from models.tables import AuditEvent


def record(
    session: Session, *, now: datetime, actor: str, action: str, kind: str, name: str, **details: Any
) -> None:
    """One line of the log: `actor` did `action` to the `kind` named `name`."""
    session.add(AuditEvent(at=now, actor=actor, action=action, kind=kind, name=name, details=details))
