"""`cohort-sync status`: the page a person opens first.

What is known of the processes is read from their work, not asked of them: a schedule that is overdue means no
scheduler, a run that nobody takes means no worker. That is true on every host that shares the database.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from cli import context, output, views
from cli.stack import running
from cli.tables import NONE, Column, State
from models.membership import snapshots
from models.naming import every
from models.observability import alerts, feeds, health, overview
from models.observability.cohort_feed import CohortFeed
from models.setup.blackouts import next_start
from models.tables import AmplitudeProject, CohortBinding, SyncRun
from models.types import RunState
from models.wording import plural

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Page:
    """Everything the page is made of, read in one go."""

    bindings: list[CohortBinding]
    last: dict[int, SyncRun]
    current: dict[int, SyncRun]
    downloads: list[tuple[AmplitudeProject, int, int]]
    schedulers: dict[str, str] | None  # none: the queue is away
    watched: health.HealthFacts
    needs: list[alerts.Alert]
    feeds: list[CohortFeed]
    here: running.Running | None  # the stack of this machine
    now: datetime

    @property
    def queue(self) -> bool:
        """Whether the queue can be reached."""
        return self.schedulers is not None


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What there is, how it went, when it runs next, and what needs you.

    Example: cohort-sync status
    """
    page = _read()
    if as_json:
        output.emit(_document(page))
    else:
        _print(page)


def _read() -> Page:
    now, schedulers = context.now(), context.schedulers()
    living = None if schedulers is None else len(schedulers)
    with context.database() as db, db.read() as session:
        return Page(
            bindings=every(session, CohortBinding),
            last=overview.last_results(session),
            current=overview.unfinished(session),
            downloads=[
                (source, *snapshots.quota(session, source, now=now))
                for source in every(session, AmplitudeProject)
            ],
            schedulers=schedulers,
            watched=health.facts(session, now, schedulers=living),
            needs=alerts.current(session, now, schedulers=living),
            feeds=feeds.feeds(session, now),
            here=running.find(context.settings().data_dir),
            now=now,
        )


def _document(page: Page) -> dict[str, Any]:
    return {
        "at": output.iso(page.now),
        "queue": {"reachable": page.queue},
        "schedulers": page.schedulers,
        "here": asdict(page.here) if page.here else None,
        "work": {
            "overdue": page.watched.overdue,
            "overdue_since": output.iso(page.watched.overdue_since),
            "unclaimed": page.watched.unclaimed,
            "unclaimed_since": output.iso(page.watched.unclaimed_since),
            "in_hand": page.watched.working,
        },
        "bindings": [
            {
                **views.binding(binding),
                "current_run": _run(page.current.get(binding.id)),
                "last_run": _run(page.last.get(binding.id)),
            }
            for binding in page.bindings
        ],
        "sources": [
            {"name": source.name, "downloads": {"spent": spent, "quota": allowed}}
            for source, spent, allowed in page.downloads
        ],
        "feeds": [views.feed(feed) for feed in page.feeds],
        "needs": [
            {
                "about": need.about,
                "code": need.code,
                "message": need.message,
                "remedy": need.remedy,
                "final": need.final,
            }
            for need in page.needs
        ],
    }


def _run(row: SyncRun | None) -> dict[str, Any] | None:
    return None if row is None else views.run(row)


def _print(page: Page) -> None:
    output.table(
        [
            Column("binding"),
            Column("cohort", 4),
            Column("attribute", 3),
            Column("members", 2),
            Column("now", 1),
            Column("last result"),
            Column("next run"),
        ],
        [
            (
                binding.name,
                binding.cohort_shown,
                binding.attribute,
                binding.members_shown,
                _current(page.current.get(binding.id)),
                State(_last(page.last.get(binding.id), page.now)),
                _next(binding, page.now),
            )
            for binding in page.bindings
        ],
        empty="There is no binding yet: `cohort-sync source add`, `destination add`, then `binding add`.",
    )
    if page.downloads:
        output.say()
    for source, spent, allowed in page.downloads:
        output.say(f"Source {source.name}: {spent:,} of {plural(allowed, 'download')} this month.")
    for feed in page.feeds:
        output.say(f"Webhook of {feed.binding}: {_fed(feed, page.now)}.")
    if page.here is not None and page.here.flower:
        output.say(f"Here: Flower {page.here.flower}, metrics {page.here.metrics} (process {page.here.pid}).")
    output.say()
    if not page.needs:
        output.say("Nothing needs you.")
    for need in page.needs:
        output.say(f"! {need.about}: {need.code}: {need.message}")
        output.say(f"  {need.remedy}")


def _fed(feed: CohortFeed, now: datetime) -> str:
    if feed.last_message is None:
        heard = "no message yet"
    else:
        heard = f"last message {output.span(now - feed.last_message)} ago"
    if feed.lag is not None:
        heard += f", last complete sync computed {output.span(feed.lag)} ago"
    return f"{heard}; {plural(feed.messages, 'message')}, {feed.refused:,} refused"


def _current(run: SyncRun | None) -> str | None:
    if run is None:
        return None
    if run.state in {RunState.RUNNING, RunState.WAITING}:
        return f"run {run.id}, {run.stage}"
    return f"run {run.id}, {run.state}"


def _last(run: SyncRun | None, now: datetime) -> str:
    if run is None or run.finished_at is None:
        return "never"
    return f"{run.state} {output.span(now - run.finished_at)} ago (run {run.id})"


def _next(binding: CohortBinding, now: datetime) -> str:
    if binding.paused:
        return f"paused: {binding.pause_reason}" if binding.pause_reason else "paused"
    if (starts := next_start(binding, now)) is not None:
        return output.local(starts, binding.timezone, now)
    if binding.after_name is not None:
        return f"after {binding.after_name}"
    return "on demand" if binding.cron is None else NONE
