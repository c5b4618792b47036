"""The Cohorts pages of Flower: what needs a person, each binding, each run. Rendered on the server.

The buttons on them are links to the pages of `cli/flower/asks.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session
from tornado.web import StaticFileHandler, authenticated, url

from cli import context, output, timeline, views
from cli.commands.runs.report import odd_keys, spared
from cli.commands.setup.checks import steps_of
from cli.config_file import timing, vendors
from cli.flower import charts
from cli.flower.asks import Ask
from cli.flower.forecasts import Forecasts
from cli.flower.handlers import number
from cli.flower.loader import STATIC
from cli.flower.page import Page, next_run
from models.database import Database
from models.naming import every, find
from models.observability import alerts, feeds, overview, run_history
from models.runs import decisions
from models.tables import AmplitudeProject, CohortBinding, StageClaim, SyncRun
from models.types import UNFINISHED, RunState, Trigger
from models.wording import plural

NEEDS_SHOWN = 25
CHART_RUNS = 60
OF_BINDINGS = {"PAUSED", "OVERDUE"}  # needs of a binding that are not its last run's


class Overview(Page):  # type: ignore[misc,unused-ignore]
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
                "needs": self._linked(session, needs[:NEEDS_SHOWN]),
                "needs_total": len(needs),
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

    def _linked(
        self, session: Session, needs: list[alerts.Alert]
    ) -> list[tuple[alerts.Alert, str | None, str]]:
        """Each need with the page where a person decides about it, and what that page is called."""
        bad = run_history.bad_runs(session, [one.id for one in needs if one.kind == "binding"])
        found: list[tuple[alerts.Alert, str | None, str]] = []
        for one in needs:
            run = one.id if one.kind == "run" else None
            if one.kind == "binding" and one.code not in OF_BINDINGS:
                run = bad.get(one.id)
            if run is not None:
                found.append((one, self.reverse_url("cohorts-run", str(run)), f"Run {run}"))
            elif one.kind == "binding":
                found.append((one, self.reverse_url("cohorts-binding", str(one.id)), "Binding"))
            elif one.kind == "workers":
                found.append((one, self.reverse_url("workers"), "Workers"))
            elif one.kind == "source":
                found.append((one, "#sources", "Downloads"))
            else:
                found.append((one, None, ""))
        return found


def binding_row(session: Session, row: CohortBinding, now: datetime) -> dict[str, Any]:
    """A binding with its last result and its members over time."""
    runs = run_history.recent(session, row.id)
    ended = (one for one in runs if one.finished_at is not None and one.state != RunState.SKIPPED)
    counts = [one.members for one in run_history.synced(runs)]
    return {
        "row": row,
        "current": next((one for one in runs if one.state in UNFINISHED), None),
        "last": next(ended, None),
        "line": charts.sparkline(
            counts, f"Members in the last {plural(len(counts), 'run')}: {', '.join(map(str, counts))}"
        ),
        "next": next_run(row, now),
    }


class Binding(Page):  # type: ignore[misc,unused-ignore]
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
            good = [
                charts.Result(one.id, one.finished_at, one.members, one.entered, one.exited)
                for one in run_history.synced(runs)
                if one.finished_at is not None
            ]
            # Beside the first one, in which everybody enters, nobody would see the others.
            first_sync = len(good) > 1 and good[0].entered == good[0].members and good[0]
            last = overview.unfinished_of(session, row.id)
            bad = session.get(SyncRun, row.bad_run_id) if row.bad_run_id else None
            return {
                "row": row,
                "current": last,
                "bad": bad,
                "next": next_run(row, now),
                "members": charts.members(good),
                "changes": charts.changes(good[1:] if first_sync else good),
                "first_sync": first_sync,
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
        ("Cohort", row.cohort_shown),
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


class Check(Page):  # type: ignore[misc,unused-ignore]
    """Every precondition of a binding: the vendors are asked, nothing is changed or spent."""

    @authenticated
    async def get(self, name: str) -> None:
        """The page."""
        await self.show("cohorts_check.html", self._look, name)

    def _look(self, name: str) -> dict[str, Any]:
        with self.db.read() as session:
            row = find(session, CohortBinding, name)
        with vendors.opened(self.db, command=False) as outside:
            [steps] = steps_of(outside, [row])
        return {"row": row, "steps": steps}


class Runs(Page):  # type: ignore[misc,unused-ignore]
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


class Run(Page):  # type: ignore[misc,unused-ignore]
    """A run: its stages in time, counts, batches, rejections, and its error with the remedy."""

    @authenticated
    async def get(self, run_id: str) -> None:
        """The page."""
        await self.show("cohorts_run.html", self._look, run_id)

    def _look(self, run_id: str) -> dict[str, Any]:
        now = context.now()
        with self.db.read() as session:
            row = decisions.get_run(session, run_id)
            reasons = overview.rejections(session, row.id)
            claims = run_history.claims(session, row.id)
            return {
                "row": row,
                "error": views.run_error(row),
                "reasons": reasons,
                "batches": run_history.batches(session, row.id),
                "batch_count": run_history.batch_count(session, row.id),
                "more_claims": len(claims) == run_history.CLAIMS_SHOWN,
                "steps": drawn_steps(row, claims, now),
                "lost_since": timeline.lost_since(row, now),
                "facts": run_facts(row),
            }


def drawn_steps(row: SyncRun, claims: list[StageClaim], now: datetime) -> list[tuple[timeline.Step, str]]:
    """The run's steps, each with its bar; none of a run that was skipped as it began."""
    steps = timeline.steps(row, claims, now)
    return [(one, charts.bar(one, row.created_at, row.finished_at or now)) for one in steps]


def run_facts(row: SyncRun) -> list[tuple[str, str]]:
    """What is known of a run besides its counts."""
    facts = [
        ("Scheduled for", output.text(row.scheduled_for)),
        ("Started", output.text(row.started_at)),
        ("Ended", output.text(row.finished_at)),
        (
            "Snapshot rows",
            f"{row.snapshot_rows:,}, of them {row.blank:,} blank and {row.duplicate:,} duplicate",
        ),
        (
            "Requests",
            f"{row.amplitude_requests:,} to Amplitude, {row.marketing_cloud_requests:,} to Marketing Cloud",
        ),
    ]
    if row.odd:
        facts.append(("Odd keys", odd_keys(row.odd, row.odd_examples)))
    if row.spared:
        facts.append(("Not unflagged", spared(row.spared)))
    if row.attempt:
        facts.append(("Failed attempts of this stage", f"{row.attempt:,}"))
    return facts


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
