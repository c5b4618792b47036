"""The Cohorts pages of Flower: what needs a person, each binding, each run, and the buttons. Rendered on the server.

A button is a link to a page that asks; only the form there changes something. So everything works without a script,
by keyboard and on a phone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session
from tornado.escape import xhtml_escape
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated, url

from cli import context, output, views
from cli.commands.setup.checks import steps_of
from cli.config_file import timing, vendors
from cli.flower import actions, charts
from cli.flower.forecasts import Forecasts
from cli.flower.handlers import READ_ONLY, CohortsHandler, number
from cli.flower.loader import STATIC
from models.database import Database
from models.errors import SyncError
from models.naming import every, find
from models.observability import alerts, feeds, overview, run_history
from models.runs import lifecycle
from models.tables import AmplitudeProject, CohortBinding, SyncRun
from models.types import UNFINISHED, RunState, Trigger

NEEDS_SHOWN = 25
CHART_RUNS = 60
ASKS = {
    "run": ("Run now", "It syncs the cohort as it is at this moment, through the queue."),
    "pause": ("Pause", "No scheduled run is made until it is resumed. A run can still be started here."),
    "resume": ("Resume", "It goes on with its schedule. What was missed while it was paused stays missed."),
    "cancel": ("Cancel", "Nothing more is sent. What was sent already is followed to its end first."),
    "approve": ("Approve", "The run goes on past the guard that holds it, and pushes its changes."),
    "reject": ("Reject", "The run ends, and nothing is pushed."),
}


class Page(CohortsHandler):  # type: ignore[misc,unused-ignore]
    """A page; an error is a page as well."""

    async def show(self, template: str, look: Any, *given: Any) -> None:
        """Render what `look` finds in the database."""
        try:
            found = await self.apart(look, *given)
        except SyncError as error:
            self.refuse(error)
        else:
            self.draw(template, **found)

    def refuse(self, error: SyncError, *, back: str = "") -> None:
        """The error with its remedy."""
        self.set_status(actions.status_of(error))
        self.draw("cohorts_error.html", error=error, back=back)

    def draw(self, template: str, **found: Any) -> None:
        """With the words that every template needs."""
        self.render(
            template,
            read_only=self.read_only,
            asks=ASKS,
            text=output.text,
            prose=prose,
            when=lambda value: output.when(value, context.now()),
            span=output.span,
            **found,
        )


def prose(message: str | None) -> str:
    """A message as HTML: what stands between backticks is a command."""
    pieces = xhtml_escape(message or "").split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))


class Overview(Page):
    """What needs a person, then each binding, then the sources."""

    @authenticated
    async def get(self) -> None:
        """The page."""
        await self.show("cohorts.html", self._look, self.schedulers)

    def _look(self, schedulers: Any) -> dict[str, Any]:
        now, living = context.now(), schedulers()
        search, offset = self.one("search") or "", number("offset", self.one("offset") or "0")
        with self.db.read() as session:
            needs = alerts.current(session, now, schedulers=living)
            rows, total = run_history.bindings(session, search=search, offset=offset)
            return {
                "needs": needs[:NEEDS_SHOWN],
                "more_needs": max(0, len(needs) - NEEDS_SHOWN),
                "link": self._link,
                "queue": living is not None,
                "schedulers": living,
                "rows": [binding_row(session, row, now) for row in rows],
                "total": total,
                "search": search,
                "offset": offset,
                "size": run_history.PAGE,
                "sources": self.settings["cohorts_forecasts"].of_sources(
                    session, every(session, AmplitudeProject), now
                ),
            }

    def _link(self, need: alerts.Alert) -> str | None:
        if need.kind == "binding":
            return str(self.reverse_url("cohorts-binding", str(need.id)))
        if need.kind == "run":
            return str(self.reverse_url("cohorts-run", str(need.id)))
        return str(self.reverse_url("workers")) if need.kind == "workers" else None


def binding_row(session: Session, row: CohortBinding, now: datetime) -> dict[str, Any]:
    """A binding with its last result and its members over time."""
    runs = run_history.recent(session, row.id)
    ended = (one for one in runs if one.finished_at is not None and one.state != RunState.SKIPPED)
    counts = [one.members for one in run_history.synced(runs)]
    return {
        "row": row,
        "current": next((one for one in runs if one.state in UNFINISHED), None),
        "last": next(ended, None),
        "line": charts.line(counts, f"Members in the last {len(counts)} runs: {', '.join(map(str, counts))}"),
        "next": next_run(row, now),
    }


def next_run(row: CohortBinding, now: datetime) -> str:
    """The next run in the binding's own time zone."""
    if row.paused:
        return "paused"
    if row.next_due_at is None:
        return "on demand" if row.after_name is None else f"after {row.after_name}"
    far = output.span(abs(row.next_due_at - now))
    away = f"in {far}" if row.next_due_at > now else f"due {far} ago"
    return f"{row.next_due_at.astimezone(ZoneInfo(row.timezone)):%a %d %b %H:%M} {row.timezone}, {away}"


class Binding(Page):
    """A binding: its members over time, its runs, its settings."""

    @authenticated
    async def get(self, name: str) -> None:
        """The page."""
        await self.show("cohorts_binding.html", self._look, name)

    def _look(self, name: str) -> dict[str, Any]:
        now = context.now()
        with self.db.read() as session:
            row = find(session, CohortBinding, name)
            runs = run_history.recent(session, row.id, limit=CHART_RUNS)
            good = run_history.synced(runs)
            last = overview.unfinished_of(session, row.id)
            bad = session.get(SyncRun, row.bad_run_id) if row.bad_run_id else None
            return {
                "row": row,
                "current": last,
                "bad": bad,
                "next": next_run(row, now),
                "first_last": (good[0].members, good[-1].members) if good else None,
                "line": charts.line(
                    [one.members for one in good],
                    f"Members over the last {len(good)} runs",
                    width=600,
                    height=120,
                ),
                "bars": charts.bars(
                    [(one.entered, one.exited) for one in good],
                    "Entered (up) and exited (down) of each run",
                ),
                "runs": run_history.page(
                    session, run_history.Filter(binding_id=row.id), limit=run_history.RECENT
                ),
                "settings": binding_settings(row),
                "feed": feed_facts(session, row, now),
            }


def feed_facts(session: Session, row: CohortBinding, now: datetime) -> dict[str, Any] | None:
    """What the webhook told of the binding's cohort, and the doubts about it; none if it is fed by download."""
    found = next(iter(feeds.feeds(session, now, only=row.id)), None)
    if found is None:
        return None
    return {
        "doubts": found.alerts(),
        "facts": [
            ("Last message", output.when(found.last_message, now) if found.last_message else "none yet"),
            (
                "Last complete sync computed",
                output.when(found.last_sync, now) if found.last_sync else "none yet",
            ),
            ("Messages stored", found.messages),
            ("Messages refused in 30 days", found.refused),
            ("Reconciled", output.when(found.based_at, now) if found.based_at else "never"),
        ],
    }


def binding_settings(row: CohortBinding) -> list[tuple[str, Any]]:
    """What is set of a binding, for a person."""
    return [
        ("Source", row.project.name),
        ("Cohort", row.cohort_id),
        ("Fed by", row.feed),
        ("Destination", row.destination.name),
        ("Attribute", row.attribute),
        ("Runs", timing.in_words(row)),
        ("When one is still running", row.overlap),
        (
            "When occurrences were missed",
            f"{row.catchup}, within {timing.length(row.catchup_window_seconds)}",
        ),
        ("Removal guard", "default" if row.max_removal_percent is None else f"{row.max_removal_percent} %"),
        ("Paused", f"yes: {row.pause_reason}" if row.paused else "no"),
        ("Failures in a row", row.failures_in_row),
    ]


class Check(Page):
    """Every precondition of a binding: the vendors are asked, nothing is changed or spent."""

    @authenticated
    async def get(self, name: str) -> None:
        """The page."""
        await self.show("cohorts_check.html", self._look, name)

    def _look(self, name: str) -> dict[str, Any]:
        with self.db.read() as session:
            row = find(session, CohortBinding, name)
        with vendors.opened(self.db) as outside:
            [steps] = steps_of(outside, [row])
        return {"row": row, "steps": steps}


class Runs(Page):
    """Runs by state, binding, trigger and time."""

    @authenticated
    async def get(self) -> None:
        """The page."""
        await self.show("cohorts_runs.html", self._look)

    def _look(self) -> dict[str, Any]:
        given = {name: self.one(name) or "" for name in ("binding", "state", "trigger", "since", "until")}
        with self.db.read() as session:
            only = find(session, CohortBinding, given["binding"]).id if given["binding"] else None
            runs = run_history.page(session, self.wanted(only))
        older = runs[-1].id if len(runs) == run_history.PAGE else None
        return {
            "runs": runs,
            "given": given,
            "older": older,
            "states": list(RunState),
            "triggers": list(Trigger),
        }


class Run(Page):
    """A run: its stages in time, counts, batches, rejections, and its error with the remedy."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """The page."""
        await self.show("cohorts_run.html", self._look, run_id)

    def _look(self, run_id: str) -> dict[str, Any]:
        now = context.now()
        with self.db.read() as session:
            row = lifecycle.get_run(session, run_id)
            batches, sent, acknowledged = run_history.pushed(session, row.id)
            return {
                "row": row,
                "error": views.run_error(row),
                "reasons": overview.rejections(session, row.id),
                "batches": run_history.batches(session, row.id),
                "batch_count": batches,
                "steps": timeline(row, sent, acknowledged, now),
            }


def timeline(
    row: SyncRun, sent: datetime | None, acknowledged: datetime | None, now: datetime
) -> list[tuple[str, datetime, timedelta | None, str]]:
    """What the run did and waited for: what, since when, how long (none: not known to have ended), a remark."""
    end = row.finished_at or now
    snapshot = row.snapshot
    steps: list[tuple[str, datetime, timedelta | None, str]] = [
        ("waited for a worker", row.created_at, (row.started_at or end) - row.created_at, "")
    ]
    if snapshot is not None and row.started_at is not None:
        shared = "shared with an earlier run" if snapshot.requested_at < row.created_at else snapshot.kind
        done = snapshot.completed_at
        steps.append(
            (
                "snapshot",
                snapshot.requested_at,
                None if done is None else done - snapshot.requested_at,
                shared,
            )
        )
        if done is not None and sent is not None:
            steps.append(("diff", done, max(timedelta(), sent - done), ""))
    if sent is not None:
        steps.append(("push", sent, None if acknowledged is None else acknowledged - sent, ""))
    if row.wake_at is not None and not RunState(row.state).finished:
        steps.append(("waits", now, row.wake_at - now, row.error_code or f"for {row.stage}"))
    if row.finished_at is not None:
        steps.append((f"ended {row.state}", row.finished_at, timedelta(), ""))
    return steps


class Ask(Page):
    """A button: GET asks, POST does."""

    def check_xsrf_cookie(self) -> None:
        """Flower trusts the browser's word about the site with a password; here the form's token is needed too."""
        super().check_xsrf_cookie()
        RequestHandler.check_xsrf_cookie(self)

    @authenticated
    async def get(self, kind: str, name: str, action: str) -> None:
        """The question."""
        if self.read_only:
            raise HTTPError(403, READ_ONLY)
        await self.show("cohorts_ask.html", self._look, kind, name, action)

    @authenticated
    async def post(self, kind: str, name: str, action: str) -> None:
        """The answer was yes."""
        asked = self.asked()
        change = self._change(kind, action)
        back = self._page_of(kind, name)
        try:
            row = await self.apart(change, asked, name, self._given(action))
        except SyncError as error:
            self.refuse(error, back=back)
            return
        self.redirect(self._page_of("run", str(row.id)) if isinstance(row, SyncRun) else back, status=303)

    def _look(self, kind: str, name: str, action: str) -> dict[str, Any]:
        self._change(kind, action)
        with self.db.read() as session:
            run = lifecycle.get_run(session, name) if kind == "run" else None
            row = run.binding if run is not None else find(session, CohortBinding, name)
        back = self._page_of(kind, name)
        return {"row": row, "run": run, "action": action, "back": back, "key": secrets.token_urlsafe(12)}

    def _given(self, action: str) -> Mapping[str, Any]:
        body = {
            name: values[-1].decode("utf-8", "replace")
            for name, values in self.request.body_arguments.items()
        }
        if action == "run":
            ticked = {name: name in body for name in ("queue", "force", "full")}
            return {**ticked, "idempotency_key": body.get("idempotency_key")}
        return {"reason": body.get("reason", "")} if action in {"pause", "reject"} else {}

    def _change(self, kind: str, action: str) -> actions.Change:
        found = (actions.OF_BINDING if kind == "binding" else actions.OF_RUN).get(action)
        if found is None:
            raise HTTPError(404)
        return found

    def _page_of(self, kind: str, name: str) -> str:
        return str(self.reverse_url(f"cohorts-{kind}", name))


def handlers(database: Database) -> list[Any]:
    """Where the pages are."""
    given = {"database": database}
    return [
        url(r"/cohorts", Overview, given, name="cohorts"),
        url(r"/cohorts/static/(.*)", StaticFileHandler, {"path": str(STATIC)}, name="cohorts-static"),
        url(r"/cohorts/runs", Runs, given, name="cohorts-runs"),
        url(r"/cohorts/run/([^/]+)", Run, given, name="cohorts-run"),
        url(r"/cohorts/binding/([^/]+)", Binding, given, name="cohorts-binding"),
        url(r"/cohorts/binding/([^/]+)/check", Check, given, name="cohorts-check"),
        url(r"/cohorts/(binding|run)/([^/]+)/([a-z]+)", Ask, given, name="cohorts-ask"),
    ]


def settings(database: Database) -> dict[str, Any]:
    """What the pages need in Tornado's settings."""
    return {"cohorts_forecasts": Forecasts(database)}
