"""`cohort-sync schedule`: what will run when, and the month's downloads against the quota."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from cli import context, output
from cli.config_file import quota
from cli.tables import Column
from models.naming import every
from models.tables import AmplitudeProject, CohortBinding
from models.wording import plural
from scheduler.forecast import Expected, downloads, planned

app = typer.Typer(add_completion=False)

SHOWN = 40
PRICES = {True: "a download", False: "shared", None: "webhook"}


@app.command()
def schedule(
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days ahead to look.")] = 31,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What will run when, and the month's Amplitude downloads against the quota.

    Example: cohort-sync schedule --days 7

    Paused bindings are left out, and so is what nobody can foresee: retries, overlaps, runs by hand.
    """
    now = context.now()
    until = now + timedelta(days=days)
    with context.database() as db, db.read() as session:
        bindings = [one for one in map(planned, every(session, CohortBinding)) if one is not None]
        seen = _Seen(keep=None if as_json else SHOWN)
        costs = downloads(seen.through(quota.foreseen(bindings, now=now, until=until)))
        sources = [
            (source.name, quota.months(session, source, costs, now=now, until=until))
            for source in every(session, AmplitudeProject)
        ]
    if as_json:
        output.emit(
            {
                "from": output.iso(now),
                "until": output.iso(until),
                "runs": [_run(run) for run in seen.runs],
                "sources": [
                    {"name": name, "months": [_month(one) for one in found]} for name, found in sources
                ],
            }
        )
    else:
        _print(seen, sources, now)


class _Seen:
    """The first runs of a forecast, or all, and how many there are: a year's have no room in memory."""

    def __init__(self, *, keep: int | None) -> None:
        self.runs: list[Expected] = []
        self.total = 0
        self._keep = keep

    def through(self, runs: Iterable[Expected]) -> Iterator[Expected]:
        """The same runs, seen."""
        for run in runs:
            self.total += 1
            if self._keep is None or self.total <= self._keep:
                self.runs.append(run)
            yield run


def _print(seen: _Seen, sources: list[tuple[str, list[quota.Month]]], now: datetime) -> None:
    output.table(
        [Column("at"), Column("binding"), Column("source", 3), Column("cohort", 2), Column("costs", 1)],
        [
            (
                output.local(run.at, run.binding.timezone, now),
                run.binding.name + (" (chained)" if run.chained else ""),
                run.binding.source,
                run.binding.cohort[0],
                PRICES[run.download],
            )
            for run in seen.runs
        ],
        empty="Nothing runs by itself: give a binding a `--cron`.",
    )
    if seen.total > SHOWN:
        output.say(f"… and {seen.total - SHOWN:,} more; `--json` has them all.")
    for name, found in sources:
        output.say()
        for one in found:
            verdict = "" if one.fits else ": more than the quota; scheduled runs past it are skipped"
            output.say(
                f"Source {name}, {one.month}: {plural(one.spent, 'download')} spent, {one.to_come:,} to come, "
                f"{one.total:,} of {one.quota:,}{verdict}."
            )


def _run(run: Expected) -> dict[str, Any]:
    return {
        "at": output.iso(run.at),
        "binding": run.binding.name,
        "scheduled_for": output.iso(run.occurrence),
        "trigger": "chain" if run.chained else "schedule",
        "source": run.binding.source,
        "cohort": run.binding.cohort[0],
        "costs": {True: "download", False: "shared", None: "none"}[run.download],
    }


def _month(one: quota.Month) -> dict[str, Any]:
    return {
        "month": one.month,
        "spent": one.spent,
        "to_come": one.to_come,
        "total": one.total,
        "quota": one.quota,
        "fits": one.fits,
    }
