"""What a run begins as, when it is inserted among many: by its schedule, after another binding's, or as a retry.

A person's run begins in `models/runs/lifecycle.py`, where a second one is refused; here a constraint refuses it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from models.errors import SyncError
from models.types import RunState, Stage, Trigger


def row(
    binding_id: int,
    trigger: Trigger,
    state: RunState,
    *,
    scheduled_for: datetime | None,
    now: datetime,
    skipped: SyncError | None = None,
) -> dict[str, Any]:
    """The columns of a new run; one that was `skipped` has ended as it begins, and says why."""
    return {
        "binding_id": binding_id,
        "trigger": trigger,
        "scheduled_for": scheduled_for,
        "state": state,
        "stage": Stage.SNAPSHOT,
        "created_at": now,
        "finished_at": now if skipped else None,
        "error_code": skipped.code if skipped else None,
        "error_message": skipped.message if skipped else None,
        "error_remedy": skipped.remedy if skipped else None,
    }
