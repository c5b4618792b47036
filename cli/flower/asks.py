"""The buttons: a link leads to a page that asks, and only the form there changes something.

So everything works without a script, by keyboard and on a phone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from tornado.web import HTTPError, RequestHandler, authenticated

from cli.flower import actions
from cli.flower.handlers import READ_ONLY
from cli.flower.page import Page
from models.errors import SyncError
from models.naming import find
from models.runs import decisions
from models.tables import CohortBinding, SyncRun

# By action: its name on the button, and what it does.
ASKS = {
    "run": ("Run now", "It syncs the cohort as it is at this moment, through the queue."),
    "pause": ("Pause", "No scheduled run is made until it is resumed. A run can still be started here."),
    "resume": ("Resume", "It goes on with its schedule. What was missed while it was paused stays missed."),
    "cancel": ("Cancel run", "Nothing more is sent. What was sent already is followed to its end first."),
    "approve": ("Approve", "The run goes on past the guard that holds it, and pushes its changes."),
    "reject": ("Reject", "The run ends, and nothing is pushed."),
}
WITH_REASON = {"pause", "approve", "reject"}
CHOICES = {
    "full": "Full: read the data extension first, and remove flags that nobody knows of.",
    "queue": "Queue: wait behind an unfinished run instead of being refused.",
    "force": "Force: ask for a download though the month's quota is spent.",
    "yes": "Yes: go past the guards. A run that would remove most members is not held.",
}


class Ask(Page):  # type: ignore[misc,unused-ignore]
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
            run = decisions.get_run(session, name) if kind == "run" else None
            row = run.binding if run is not None else find(session, CohortBinding, name)
        return {
            "row": row,
            "run": run,
            "action": action,
            "title": ASKS[action][0],
            "does": ASKS[action][1],
            "with_reason": action in WITH_REASON,
            "reason_max": actions.REASON_MAX,
            "choices": CHOICES if action == "run" else {},
            "back": self._page_of(kind, name),
            "key": secrets.token_urlsafe(12),
        }

    def _given(self, action: str) -> Mapping[str, Any]:
        body = {
            name: values[-1].decode("utf-8", "replace")
            for name, values in self.request.body_arguments.items()
        }
        if action == "run":
            ticked = {name: name in body for name in CHOICES}
            return {**ticked, "idempotency_key": body.get("idempotency_key")}
        return {"reason": body.get("reason", "")} if action in WITH_REASON else {}

    def _change(self, kind: str, action: str) -> actions.Change:
        found = (actions.OF_BINDING if kind == "binding" else actions.OF_RUN).get(action)
        if found is None:
            raise HTTPError(404)
        return found

    def _page_of(self, kind: str, name: str) -> str:
        return str(self.reverse_url(f"cohorts-{kind}", name))
