"""The Cohorts pages as JSON, beside Flower's own API and behind the same password.

Documents are those that the command line prints. An error is `{"error": {"code", "message", "remedy"}}` with its HTTP
status; `openapi.json` says the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from sqlalchemy.orm import Session
from tornado.web import HTTPError, RequestHandler, authenticated, url

from cli import views
from cli.flower import actions
from cli.flower.api_document import LIMIT_MAX, document
from cli.flower.handlers import OTHERS, REMEDIES, CohortsHandler, number
from models import audit
from models.database import Database
from models.errors import ConfigurationError, SyncError
from models.naming import every, find
from models.observability import run_history
from models.runs import decisions
from models.tables import CohortBinding, SyncRun

PLACE = "/api/cohorts"
FILTERS = ("binding", "state", "trigger", "since", "until", "before", "limit")


class Api(CohortsHandler):  # type: ignore[misc,unused-ignore]
    """A JSON document, or an error as one."""

    door = audit.API

    def say(self, found: Any, status: int = 200) -> None:
        """The document."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(json.dumps(found))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What Flower would say as a page."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        message = raised.log_message if isinstance(raised, HTTPError) and raised.log_message else None
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.say(
            {
                "error": {
                    "code": OTHERS.get(status_code, "REQUEST_INVALID"),
                    "message": message or HTTPStatus(status_code).phrase + ".",
                    "remedy": REMEDIES.get(status_code, "Look at Flower's log."),
                }
            },
            status_code,
        )

    def one(self, name: str) -> str | None:
        """A parameter of the query; unlike a form's an empty one is a value."""
        given: str | None = RequestHandler.get_argument(self, name, None)
        return given

    async def answer(self, work: Callable[..., Any], *given: Any, status: int = 200) -> None:
        """What the work finds, or why it does not."""
        try:
            found = await self.apart(work, *given)
        except SyncError as error:
            told = {"code": error.code, "message": error.message, "remedy": error.remedy}
            self.say({"error": told}, error.http_status)
        else:
            self.say(found, status)

    def read(self, look: Callable[[Session], Any]) -> Any:
        """What is in the database."""
        with self.db.read() as session:
            return look(session)

    def body(self) -> dict[str, Any]:
        """The request's JSON object; none is an empty one."""
        try:
            given = json.loads(self.request.body or b"{}")
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise ConfigurationError(
                "SETTING_INVALID", field="body", value="…", hint="Send a JSON object; nothing was changed."
            )
        return given


class Bindings(Api):
    """Every binding, or one."""

    @authenticated
    async def get(self, name: str | None = None) -> None:
        """As `cohort-sync binding list` and `show` print them."""
        await self.answer(self.read, lambda session: self._look(session, name))

    def _look(self, session: Session, name: str | None) -> Any:
        if name is not None:
            return views.binding(find(session, CohortBinding, name))
        return [views.binding(row) for row in every(session, CohortBinding)]


class Runs(Api):
    """Runs by filter, or one."""

    @authenticated
    async def get(self, run_id: str | None = None) -> None:
        """As `cohort-sync runs` and `show` print them."""
        await self.answer(self.read, lambda session: self._look(session, run_id))

    def _look(self, session: Session, run_id: str | None) -> Any:
        if run_id is not None:
            return views.run(decisions.get_run(session, number("run", run_id)))
        for name in self.request.query_arguments.keys() - set(FILTERS):
            raise ConfigurationError(
                "SETTING_INVALID", field="query", value=name[:40], hint=f"Use {', '.join(FILTERS)}."
            )
        binding, limit_given = self.one("binding"), self.one("limit")
        only = None if binding is None else find(session, CohortBinding, binding).id
        limit = 50 if limit_given is None else number("limit", limit_given)
        if not 0 < limit <= LIMIT_MAX:
            raise ConfigurationError(
                "SETTING_INVALID", field="limit", value=str(limit), hint=f"Give 1 to {LIMIT_MAX}."
            )
        return [views.run(row) for row in run_history.page(session, self.wanted(only), limit=limit)]


class Change(Api):
    """One change; refused in read-only mode."""

    def initialize(
        self, database: Database, change: actions.Change = actions.OF_BINDING["run"], status: int = 200
    ) -> None:
        """Which change, and the status of its success."""
        super().initialize(database)
        self._change, self._status = change, status

    @authenticated
    async def post(self, name: str) -> None:
        """Do it; the row as it is afterwards."""
        asked = self.asked()
        await self.answer(lambda: self._do(asked, name), status=self._status)

    def _do(self, asked: actions.Asked, name: str) -> dict[str, Any]:
        row = self._change(asked, name, self.body())
        return views.run(row) if isinstance(row, SyncRun) else views.binding(row)


class OpenApi(Api):
    """The document."""

    @authenticated
    async def get(self) -> None:
        """OpenAPI 3.1."""
        self.say(document())


def handlers(database: Database) -> list[Any]:
    """Where the API is."""
    given = {"database": database}
    made = {**given, "change": actions.OF_BINDING["run"], "status": 201}
    return [
        url(rf"{PLACE}/openapi.json", OpenApi, given),
        url(rf"{PLACE}/bindings", Bindings, given),
        url(rf"{PLACE}/bindings/([^/]+)", Bindings, given),
        url(rf"{PLACE}/bindings/([^/]+)/runs", Change, made),
        url(rf"{PLACE}/bindings/([^/]+)/pause", Change, {**given, "change": actions.OF_BINDING["pause"]}),
        url(rf"{PLACE}/bindings/([^/]+)/resume", Change, {**given, "change": actions.OF_BINDING["resume"]}),
        url(rf"{PLACE}/runs", Runs, given),
        url(rf"{PLACE}/runs/([^/]+)", Runs, given),
        *(
            url(rf"{PLACE}/runs/([^/]+)/{name}", Change, {**given, "change": change})
            for name, change in actions.OF_RUN.items()
        ),
    ]
