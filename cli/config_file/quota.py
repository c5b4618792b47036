"""The month's downloads foreseen, and what would fit where they pass the quota."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import TypeAlias

from sqlalchemy.orm import Session

from cli import context, output
from models.errors import SyncError
from models.membership import snapshots
from models.naming import every
from models.tables import AmplitudeProject, CohortBinding
from scheduler.forecast import Expected, Planned, downloads, forecast, next_month, planned

Costs: TypeAlias = Counter[tuple[str, str]]  # downloads by source and month

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
    session: Session, source: AmplitudeProject, costs: Costs, *, now: datetime, until: datetime
) -> list[Month]:
    """The present month and each later one that begins before `until`; `costs` are those of all sources."""
    return _months(Load(source, [], *snapshots.quota(session, source, now=now)), costs, now=now, until=until)


def _months(load: Load, costs: Costs, *, now: datetime, until: datetime) -> list[Month]:
    spent, found, first = load.spent, [], next_month(now, 0)
    while first <= until:
        name = f"{first:%Y-%m}"
        found.append(Month(name, spent, costs[load.source.name, name], load.allowed))
        first, spent = next_month(first), 0
    return found


def foreseen(bindings: list[Planned], *, now: datetime, until: datetime) -> Iterator[Expected]:
    """The forecast with this installation's settings."""
    fresh = timedelta(seconds=context.settings().snapshot_fresh_seconds)
    return forecast(bindings, now=now, until=until, fresh=fresh)


@dataclass(frozen=True)
class Load:
    """What a forecast for a source needs, so that it can be made after the transaction."""

    source: AmplitudeProject
    rows: list[CohortBinding]
    spent: int
    allowed: int


def load(session: Session, source: AmplitudeProject, *, now: datetime) -> Load:
    """The source with its bindings as they are in this transaction."""
    rows = [one for one in every(session, CohortBinding) if one.project_id == source.id]
    return Load(source, rows, *snapshots.quota(session, source, now=now))


def warnings(load: Load, *, now: datetime, about: int | None = None) -> list[dict[str, str]]:
    """What is to be said of a source whose schedules pass its quota, this month or the next.

    `about`: of one of its bindings, nothing if that one costs nothing; else the dearest one gets the advice.
    """
    until = next_month(now, 2) - timedelta(seconds=1)
    bindings = [one for one in map(planned, load.rows) if one is not None and one.costs]
    if about is not None and about not in {one.id for one in bindings}:
        return []
    runs = list(foreseen(bindings, now=now, until=until))
    worst = max(_months(load, downloads(runs), now=now, until=until), key=lambda month: month.total)
    if worst.fits:
        return []
    costs = Counter(run.binding.id for run in runs if run.download and f"{run.at:%Y-%m}" == worst.month)
    if about is None and not costs:
        return []
    dearest = about if about is not None else costs.most_common(1)[0][0]
    mine = next(one for one in bindings if one.id == dearest)
    rest = foreseen([one for one in bindings if one is not mine], now=now, until=until)
    left = worst.quota - worst.spent - downloads(rest)[mine.source, worst.month]
    advice = "" if about is not None else f"for {mine.name!r}, "
    advice += _advice(mine, load.rows, left=left, month=worst.month)
    error = SyncError(
        CODE, source=mine.source, month=worst.month, total=worst.total, quota=worst.quota, advice=advice
    )
    return [{"code": error.code, "message": error.message, "remedy": error.remedy}]


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
