"""How each webhook-fed binding is fed: what came and when, what was refused, and what its list is doubted for.

Reads only. Of the lists' messages their heads alone are read, of a week at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.errors import TerminalError
from models.membership import cohort_lists, list_facts, list_trust, webhooks
from models.membership.computed_time import instant_of
from models.membership.list_trust import Doubts, Verdict
from models.tables import CohortBinding, CohortList, WebhookRefusal
from models.types import Feed, literal_word


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
        return list_trust.SILENT in self.doubts

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


def feeds(session: Session, now: datetime, *, only: int | None = None) -> list[CohortFeed]:
    """Of every binding that a webhook feeds, or of the one with that id."""
    wanted = (
        select(CohortBinding)
        .where(CohortBinding.feed == literal_word(Feed.WEBHOOK))
        .order_by(CohortBinding.name_key)
    )
    if only is not None:
        wanted = wanted.where(CohortBinding.id == only)
    bindings = session.scalars(wanted).all()
    if not bindings:
        return []
    lists = {
        (one.project_id, one.cohort_id, one.property): one for one in session.scalars(select(CohortList))
    }
    refused = _refused(session)
    return [
        _feed(
            session,
            binding,
            lists.get((binding.project_id, binding.cohort_id, binding.destination.contact_key_property)),
            refused.get((binding.project_id, binding.cohort_id), 0),
            now,
        )
        for binding in bindings
    ]


def _feed(
    session: Session, binding: CohortBinding, found: CohortList | None, refused: int, now: datetime
) -> CohortFeed:
    about: dict[str, Any] = {
        "binding_id": binding.id,
        "binding": binding.name,
        "cohort": binding.cohort_id,
        "refused": refused,
    }
    if found is None or not webhooks.begun(session, found):
        # What is flagged stays so, whatever becomes of the cohort: somebody has to know.
        missing: Doubts = (
            {list_trust.NO_MESSAGE: {"source": binding.project.name}} if binding.member_count else {}
        )
        return CohortFeed(
            last_message=None, last_sync=None, lag=None, messages=0, based_at=None, doubts=missing, **about
        )
    verdict = list_facts.judged(session, found, now=now, ended_after=cohort_lists.ENDED_AFTER)
    last_sync = _instant(verdict.last_whole)
    kept = session.scalar(select(func.count()).where(webhooks.standing(found))) or 0
    return CohortFeed(
        last_message=verdict.heard_at,
        last_sync=last_sync,
        lag=None if last_sync is None else now - last_sync,
        messages=kept + found.forgotten,
        based_at=_instant(found.based_at),
        doubts=_standing(verdict),
        **about,
    )


def _standing(verdict: Verdict) -> Doubts:
    return {code: verdict.doubts[code] for code in list_trust.CODES if code in verdict.doubts}


def _refused(session: Session) -> dict[tuple[int, str], int]:
    rows = session.execute(
        select(WebhookRefusal.project_id, WebhookRefusal.cohort_id, func.sum(WebhookRefusal.count)).group_by(
            WebhookRefusal.project_id, WebhookRefusal.cohort_id
        )
    )
    return {(project, cohort): int(count) for project, cohort, count in rows}


def _instant(computed_time: int | None) -> datetime | None:
    return None if computed_time is None else instant_of(computed_time)
