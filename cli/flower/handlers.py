"""What every handler of ours does: look or change in a thread, and answer errors in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import structlog
from flower.views import BaseHandler
from sqlalchemy.exc import SQLAlchemyError
from tornado.web import HTTPError, RequestHandler

from cli import context
from cli.flower.actions import Asked
from cli.flower.tasks import user_of
from config.settings import Settings
from models import audit, broker
from models.database import Database
from models.errors import ConfigurationError, SyncError, TransientError
from models.observability.run_history import Filter

PATIENCE_SECONDS = 5.0
log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
# What is said of a status that no error of ours explains.
OTHERS = {
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    500: "INTERNAL",
}
REMEDIES = {
    401: "Give Flower's user and password.",
    403: "Start Flower without read_only, or come from its own pages: open the form again.",
    404: "Start at /cohorts, or at /api/cohorts/openapi.json.",
    405: "See /api/cohorts/openapi.json for what there is.",
}
READ_ONLY = "Flower is in read-only mode: nothing was changed. Use the command line, or start Flower without read_only."


def open_database(settings: Settings) -> Database:
    """Nobody waits longer than a few seconds for a page: a database that is away is an answer."""
    return Database(settings, patience=PATIENCE_SECONDS)


class CohortsHandler(BaseHandler):  # type: ignore[misc]
    """A request about bindings or runs; `database` is the process's."""

    door = audit.FLOWER  # of what it changes, for the audit log

    def initialize(self, database: Database) -> None:
        """Tornado's way to hand something to a handler."""
        self.db = database

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed through Flower."""
        return bool(self.application.options.read_only)

    def asked(self) -> Asked:
        """Who asks, refused in read-only mode."""
        if self.read_only:
            raise HTTPError(403, READ_ONLY)
        return Asked(self.db, self.capp, user_of(self)[: context.ACTOR_MAX], self.door)

    async def apart(self, work: Callable[..., Answer], *given: Any) -> Answer:
        """The work's answer, made in a thread; what the database refuses is a SyncError."""
        return await asyncio.get_running_loop().run_in_executor(None, partial(_named, work, *given))

    def schedulers(self) -> int | None:
        """How many schedulers tick; none: the queue is away."""
        state = broker.tells(self.db.settings, seconds=2.0)
        return None if state is None else len(state.schedulers)

    def one(self, name: str) -> str | None:
        """A parameter of the query as it was given; none if it is absent or empty."""
        return RequestHandler.get_argument(self, name, None) or None

    def wanted(self, binding_id: int | None) -> Filter:
        """The filter that the query asks for."""
        before = self.one("before")
        return Filter(
            binding_id=binding_id,
            state=self.one("state"),
            trigger=self.one("trigger"),
            since=instant("since", self.one("since")),
            until=instant("until", self.one("until")),
            before=None if before is None else number("before", before),
        )


def number(field: str, given: str) -> int:
    """A count or an id."""
    if not (given.isascii() and given.isdigit() and len(given) < 16):  # noqa: PLR2004 - fits any column
        raise ConfigurationError(
            "SETTING_INVALID", field=field, value=given[:40], hint="Give a whole number, such as 12."
        )
    return int(given)


def instant(field: str, given: str | None) -> Any:
    """An ISO 8601 day or time; without a zone it is UTC."""
    from datetime import UTC, datetime

    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            "SETTING_INVALID", field=field, value=given[:40], hint="Give a day or time as 2026-12-31T08:00."
        ) from None


def _named(work: Callable[..., Answer], *given: Any) -> Answer:
    try:
        return work(*given)
    except SyncError:
        raise
    except SQLAlchemyError as error:
        log.exception("page_failed", kind=type(error).__name__)
        raise TransientError("INTERNAL", kind=type(error).__name__) from None
