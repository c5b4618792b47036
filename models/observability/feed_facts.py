"""How a webhook feeds one binding: what its list holds, and what it is doubted for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.membership import cohort_lists, list_facts, list_trust, webhooks
from models.membership.computed_time import instant_of
from models.membership.list_trust import Doubts, Verdict
from models.observability.cohort_feed import CohortFeed
from models.tables import CohortBinding, CohortList


def feed_of(
    session: Session, binding: CohortBinding, found: CohortList | None, refused: int, now: datetime
) -> CohortFeed:
    """Its feed at `now`. `found`: its list, if there is one; `refused`: how many messages of its cohort were."""
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


def _instant(computed_time: int | None) -> datetime | None:
    return None if computed_time is None else instant_of(computed_time)
