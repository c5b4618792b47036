"""The month's downloads foreseen, and what would fit where they pass the quota."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from sqlalchemy.orm import Session

from cli import context, output
from models import snapshots
from models.errors import CATALOGUE
from models.naming import every
from models.tables import AmplitudeProject, CohortBinding
from models.types import Feed
from scheduler.forecast import Expected, Planned, downloads, forecast, next_month, planned

HOURS = (1, 2, 3, 4, 6, 8, 12, 24)  # steps that divide a day
CODE = "QUOTA_FORECAST"


@dataclass(frozen=True)
class Month:
    """A source's downloads of one month: made already, foreseen, allowed."""

    month: str
    spent: int
    to_come: int
    quota: int

    @property
    def total(self) -> int:
        """What the month will have cost."""
        return self.spent + self.to_come

    @property
    def fits(self) -> bool:
        """Whether the quota is enough."""
        return self.total <= self.quota


def months(
    session: Session, source: AmplitudeProject, runs: list[Expected], *, now: datetime, until: datetime
) -> list[Month]:
    """The present month and each later one that begins before `until`."""
    counted = downloads(runs, source.name)
    spent, allowed = snapshots.quota(session, source, now=now)
    found, first = [], next_month(now, 0)
    while first <= until:
        name = f"{first:%Y-%m}"
        found.append(Month(name, spent, counted[name], allowed))
        first, spent = next_month(first), 0
    return found


def foreseen(bindings: list[Planned], *, now: datetime, until: datetime) -> list[Expected]:
    """The forecast with this installation's settings."""
    fresh = timedelta(seconds=context.settings().snapshot_fresh_seconds)
    return forecast(bindings, now=now, until=until, fresh=fresh)


def warnings(session: Session, row: CohortBinding, *, now: datetime) -> list[dict[str, str]]:
    """What is to be said of a binding whose schedule passes its source's quota, this month or the next."""
    mine = planned(row)
    if mine is None or row.feed == Feed.WEBHOOK:
        return []
    until = next_month(now, 2) - timedelta(seconds=1)
    rows = [one for one in every(session, CohortBinding) if one.project_id == row.project_id]
    bindings = [one for one in map(planned, rows) if one is not None and one.costs]
    runs = foreseen(bindings, now=now, until=until)
    worst = max(months(session, row.project, runs, now=now, until=until), key=lambda month: month.total)
    if worst.fits:
        return []
    others = downloads(
        foreseen([one for one in bindings if one.id != mine.id], now=now, until=until), mine.source
    )[worst.month]
    facts = {"source": mine.source, "month": worst.month, "total": worst.total, "quota": worst.quota}
    what, remedy = CATALOGUE[CODE]
    advice = _advice(mine, rows, left=worst.quota - worst.spent - others, month=worst.month)
    return [{"code": CODE, "message": what.format(**facts), "remedy": remedy.format(advice=advice)}]


def note(found: list[dict[str, str]]) -> None:
    """Say the warnings on stderr."""
    for one in found:
        output.note(f"warning {one['code']}: {one['message']}")
        output.note(f"what to do: {one['remedy']}")


def _advice(mine: Planned, rows: list[CohortBinding], *, left: int, month: str) -> str:
    ways = [_slower(left, month)] if left > 0 and mine.schedule is not None else []
    twin = next(
        (
            row
            for row in rows
            if row.id != mine.id
            and row.cron is not None
            and (row.cohort_id, row.destination.contact_key_property) == mine.cohort
        ),
        None,
    )
    if twin is not None and (mine.schedule is None or twin.cron != mine.schedule.cron):
        ways.append(
            f"share the downloads of {twin.name!r} (--cron '{twin.cron}' --timezone {twin.timezone}, or --after)"
        )
    ways.append("feed it by webhook, which spends none (--feed webhook)")
    return "; or ".join(ways)


def _slower(left: int, month: str) -> str:
    year, number = map(int, month.split("-"))
    days = monthrange(year, number)[1]
    hours = next((step for step in HOURS if step >= ceil(days * 24 / left)), None)
    if hours is None:
        return f"run it {left} times a month at most"
    cron = "H H * * *" if hours == HOURS[-1] else f"H */{hours} * * *" if hours > 1 else "H * * * *"
    every_ = "once a day" if hours == HOURS[-1] else f"every {hours} hours" if hours > 1 else "once an hour"
    return f"run it {every_} (--cron '{cron}'), as {left} downloads are left for it"
