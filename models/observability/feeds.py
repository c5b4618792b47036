"""How each webhook-fed binding is fed: what came and when, what was refused, and what its list is doubted for.

Reads only. Of the lists' messages their heads alone are read, of a week at most.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.observability.cohort_feed import CohortFeed
from models.tables import CohortBinding, CohortList, WebhookRefusal
from models.types import Feed, literal_word


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
    from models.observability.feed_facts import feed_of  # what a list's trust stands on: 13 ms

    lists = {
        (one.project_id, one.cohort_id, one.property): one for one in session.scalars(select(CohortList))
    }
    refused = _refused(session)
    return [
        feed_of(
            session,
            binding,
            lists.get((binding.project_id, binding.cohort_id, binding.destination.contact_key_property)),
            refused.get((binding.project_id, binding.cohort_id), 0),
            now,
        )
        for binding in bindings
    ]


def _refused(session: Session) -> dict[tuple[int, str], int]:
    rows = session.execute(
        select(WebhookRefusal.project_id, WebhookRefusal.cohort_id, func.sum(WebhookRefusal.count)).group_by(
            WebhookRefusal.project_id, WebhookRefusal.cohort_id
        )
    )
    return {(project, cohort): int(count) for project, cohort, count in rows}
