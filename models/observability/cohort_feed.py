"""How one webhook-fed binding is fed, as it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from models.errors import TerminalError

if TYPE_CHECKING:
    from models.membership.list_trust import Doubts


@dataclass(frozen=True)
class CohortFeed:
    """The feed of one binding. `last_sync` is when the last sync was computed that came whole; `lag` is its age."""

    binding_id: int
    binding: str
    cohort: str
    last_message: datetime | None
    last_sync: datetime | None
    lag: timedelta | None
    messages: int
    refused: int
    based_at: datetime | None
    doubts: Doubts

    @property
    def silent(self) -> bool:
        """Whether Amplitude has stopped sending."""
        from models.membership.list_trust import SILENT  # not loaded where no feed is shown

        return SILENT in self.doubts

    def alerts(self) -> list[TerminalError]:
        """Each doubt as an error that says what to do."""
        return [
            TerminalError(
                code,
                binding=self.binding,
                cohort=self.cohort,
                **{name: fact for name, fact in facts.items() if name != "lasting"},
            )
            for code, facts in self.doubts.items()
        ]
