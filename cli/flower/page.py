"""What every Cohorts page has: its words, its signs, and errors as pages. A page never shows a traceback."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

from tornado.escape import xhtml_escape
from tornado.web import HTTPError

from cli import context, output
from cli.flower import charts
from cli.flower.handlers import OTHERS, REMEDIES, CohortsHandler
from models.errors import SyncError
from models.setup.blackouts import next_start
from models.tables import CohortBinding

# Beside the colour of a state, so that nobody has to see colours: "!" needs a look, the cross needs a person.
SIGNS = {
    "succeeded": "\N{CHECK MARK}",
    "ok": "\N{CHECK MARK}",
    "partial": "!",
    "warn": "!",
    "held": "\N{DOUBLE VERTICAL LINE}",
    "failed": "\N{MULTIPLICATION SIGN}",
    "fail": "\N{MULTIPLICATION SIGN}",
    "running": "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}",
    "queued": "\N{HORIZONTAL ELLIPSIS}",
    "waiting": "\N{HORIZONTAL ELLIPSIS}",
    "deferred": "\N{HORIZONTAL ELLIPSIS}",
    "cancelled": "\N{EN DASH}",
    "skipped": "\N{EN DASH}",
}


class Page(CohortsHandler):  # type: ignore[misc,unused-ignore]
    """A page; an error is a page as well."""

    def set_default_headers(self) -> None:
        """Every page is of this moment: a browser asks again."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

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
        self.set_status(error.http_status)
        self.draw(
            "cohorts_error.html", code=error.code, message=error.message, remedy=error.remedy, back=back
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What Flower would show with a traceback."""
        if status_code == HTTPStatus.UNAUTHORIZED:
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):
            self.current_user = None
        raised = kwargs.get("exc_info", (None, None, None))[1]
        message = raised.log_message if isinstance(raised, HTTPError) and raised.log_message else None
        self.set_status(status_code)
        self.draw(
            "cohorts_error.html",
            code=OTHERS.get(status_code, "REQUEST_INVALID"),
            message=message or f"{HTTPStatus(status_code).phrase}.",
            remedy=REMEDIES.get(status_code, "Look at Flower's log."),
            back="",
        )

    def draw(self, template: str, **found: Any) -> None:
        """With the words that every template needs."""
        now = context.now()
        self.render(
            template,
            read_only=self.read_only,
            text=output.text,
            prose=prose,
            state=state,
            moment=lambda value: moment(value, now),
            when=lambda value: output.when(value, now),
            brief=charts.brief,
            now=now,
            **found,
        )


def prose(message: str | None) -> str:
    """A message as HTML: what stands between backticks is a command."""
    pieces = xhtml_escape(message or "").split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))


def state(word: str) -> str:
    """A state as HTML: its word, with a sign and a colour."""
    shown = xhtml_escape(word)
    sign = SIGNS.get(word, "")
    return f'<span class="state state-{shown}"><span aria-hidden="true">{sign}</span> {shown}</span>'


def moment(value: datetime | None, now: datetime) -> str:
    """A time as HTML: how far it is from now, with the time itself beside it for who wonders."""
    if value is None:
        return output.text(value)
    there = value.astimezone(UTC)
    return (
        f'<time datetime="{there.isoformat(timespec="seconds")}" title="{there:%Y-%m-%d %H:%M:%S} UTC">'
        f"{output.distance(value, now)}</time>"
    )


def next_run(row: CohortBinding, now: datetime) -> tuple[str, str]:
    """The next run in the binding's own time zone: the time, and how far it is; or why there is none."""
    if row.paused:
        return "paused", row.pause_reason or ""
    starts = next_start(row, now)
    if starts is None:
        return ("on demand", "") if row.after_name is None else (f"after {row.after_name}", "")
    far = output.span(abs(starts - now))
    away = f"in {far}" if starts > now else f"due {far} ago"
    return f"{starts.astimezone(ZoneInfo(row.timezone)):%a %d %b, %H:%M}", f"{row.timezone}, {away}"
