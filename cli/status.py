"""`cohort-sync status`: the page a person opens first.

What is known of the processes is read from their work, not asked of them: a schedule that is overdue means no
scheduler, a run that nobody takes means no worker. That is true on every host that shares the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from shlex import quote
from typing import Annotated, Any

import typer

from cli import context, output, views
from models import overview, snapshots, watch
from models.destinations import SECRET_DAYS, SECRET_WARN_DAYS
from models.errors import CATALOGUE
from models.naming import every
from models.tables import AmplitudeProject, CohortBinding, Destination, SyncRun
from models.types import RunState

app = typer.Typer()

QUOTA_WARN = 0.9


@dataclass(frozen=True)
class Need:
    """Something that a person should look at."""

    about: str
    code: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Page:
    """Everything the page is made of, read in one go."""

    bindings: list[CohortBinding]
    destinations: list[Destination]
    last: dict[int, SyncRun]
    current: dict[int, SyncRun]
    downloads: list[tuple[AmplitudeProject, int, int]]
    schedulers: dict[str, str] | None  # none: the queue is away
    watched: watch.Facts
    now: datetime

    @property
    def queue(self) -> bool:
        """Whether the queue can be reached."""
        return self.schedulers is not None


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What there is, how it went, when it runs next, and what needs you.

    Example: cohort-sync status
    """
    page = _read()
    needs = list(_needs(page))
    if as_json:
        output.emit(_document(page, needs))
    else:
        _print(page, needs)


def _read() -> Page:
    now, schedulers = context.now(), context.schedulers()
    with context.database() as db, db.read() as session:
        return Page(
            bindings=every(session, CohortBinding),
            destinations=every(session, Destination),
            last=overview.last_results(session),
            current=overview.unfinished(session),
            downloads=[
                (source, *snapshots.quota(session, source, now=now))
                for source in every(session, AmplitudeProject)
            ],
            schedulers=schedulers,
            watched=watch.facts(session, now, schedulers=None if schedulers is None else len(schedulers)),
            now=now,
        )


def _needs(page: Page) -> Iterator[Need]:
    if not page.queue:
        yield Need("queue", "BROKER_UNREACHABLE", *CATALOGUE["BROKER_UNREACHABLE"])
    for about, wrong in watch.alarms(page.watched):
        if wrong.code != "SCHEDULER_BEHIND":  # said of each binding below
            yield Need(about, wrong.code, wrong.message, wrong.remedy)
    for binding in page.bindings:
        yield from _of_binding(binding, page)
    for destination in page.destinations:
        yield from _of_destination(destination, page.now)
    for source, spent, allowed in page.downloads:
        if spent >= allowed * QUOTA_WARN:
            yield Need(
                source.name,
                "AMPLITUDE_QUOTA",
                f"{spent} of this month's {allowed} cohort downloads are spent.",
                "Sync less often until the first of the month (UTC), or ask Amplitude for more.",
            )


def _of_binding(binding: CohortBinding, page: Page) -> Iterator[Need]:
    run, last = page.current.get(binding.id), page.last.get(binding.id)
    if run is not None and run.state == RunState.HELD:
        yield _of_run(binding, run)
    elif run is not None and run.state == RunState.QUEUED and page.now - _queued_at(run) > watch.UNCLAIMED:
        yield Need(
            binding.name,
            "RUN_UNCLAIMED",
            f"Run {run.id} is queued since {output.text(_queued_at(run))}, and no worker takes it.",
            "Start the stack with `cohort-sync up`, or a worker with `cohort-sync worker`.",
        )
    if last is not None and last.state == RunState.FAILED:
        yield _of_run(binding, last)
    elif last is not None and last.state == RunState.PARTIAL:
        yield Need(
            binding.name,
            "ROWS_REJECTED",
            f"Marketing Cloud refused {last.rejected:,} rows of run {last.id}.",
            f"Look at the reasons with `cohort-sync show {last.id}`; the next run tries them again.",
        )
    if binding.paused:
        yield Need(
            binding.name,
            "PAUSED",
            f"It is paused: {binding.pause_reason or 'no reason was given'}.",
            f"`cohort-sync binding resume {quote(binding.name)}` when it may go on.",
        )
    elif binding.next_due_at is not None and page.now - binding.next_due_at > watch.OVERDUE:
        yield Need(
            binding.name,
            "OVERDUE",
            f"It was due at {output.text(binding.next_due_at)}, and no scheduler made its run.",
            "Start the stack with `cohort-sync up`, or a scheduler with `cohort-sync scheduler`.",
        )


def _queued_at(run: SyncRun) -> datetime:
    return run.published_at or run.created_at


def _of_run(binding: CohortBinding, run: SyncRun) -> Need:
    return Need(
        binding.name,
        run.error_code or run.state.upper(),
        run.error_message or f"Run {run.id} is {run.state}.",
        run.error_remedy or f"Look at it with `cohort-sync show {run.id}`.",
    )


def _of_destination(destination: Destination, now: datetime) -> Iterator[Need]:
    days = (now.date() - destination.client_secret_made_on).days
    if days >= SECRET_WARN_DAYS:
        yield Need(
            destination.name,
            "SECRET_AGE",
            f"Its client secret is {days} days old; it may end after {SECRET_DAYS}.",
            "Make a new one in the installed package, then "
            f"`cohort-sync destination update {quote(destination.name)} --client-secret -`.",
        )


def _document(page: Page, needs: list[Need]) -> dict[str, Any]:
    return {
        "at": output.iso(page.now),
        "queue": {"reachable": page.queue},
        "schedulers": page.schedulers,
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
        "needs": [
            {"about": need.about, "code": need.code, "message": need.message, "remedy": need.remedy}
            for need in needs
        ],
    }


def _run(row: SyncRun | None) -> dict[str, Any] | None:
    return None if row is None else views.run(row)


def _print(page: Page, needs: list[Need]) -> None:
    output.table(
        ["binding", "attribute", "members", "now", "last result", "next run"],
        [
            (
                binding.name,
                binding.attribute,
                binding.member_count,
                _current(page.current.get(binding.id)),
                _last(page.last.get(binding.id), page.now),
                _next(binding, page.now),
            )
            for binding in page.bindings
        ],
        empty="There is no binding yet: `cohort-sync source add`, `destination add`, then `binding add`.",
    )
    if page.downloads:
        output.say()
    for source, spent, allowed in page.downloads:
        output.say(f"Source {source.name}: {spent:,} of {allowed:,} downloads this month.")
    output.say()
    if not needs:
        output.say("Nothing needs you.")
    for need in needs:
        output.say(f"! {need.about}: {need.code}: {need.message}")
        output.say(f"  {need.remedy}")


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
        return "paused"
    return "on demand" if binding.cron is None else output.when(binding.next_due_at, now)
