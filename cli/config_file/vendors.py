"""The two vendors as the door asks them: through `worker`, whose limits stand in Redis.

All workers share the vendors' limits through the queue's server. A person may ask before there is one (the
embedded server runs only while `up` does): then a server of its own serves this one command.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli import context
from config.settings import Settings
from models import broker
from models.database import Database
from models.errors import SyncError, TransientError
from models.tables import AmplitudeProject

if TYPE_CHECKING:
    from worker.context import Context
    from worker.vendors.amplitude.client import Cohort, Usage


@contextmanager
def opened(db: Database, *, command: bool = True) -> Iterator[Context]:
    """What the worker's code stands on, for one command; with its log as quiet as a person reads it, if it is one."""
    from config.queue import make_app
    from worker.context import Context

    settings = context.settings()
    if command:
        quiet(settings)
    with ExitStack() as stack:
        server = settings if context.queue_answers() else stack.enter_context(_own_server(settings))
        redis = stack.enter_context(broker.redis_client(server.redis, seconds=5.0))
        yield Context(settings=settings, db=db, redis=redis, app=make_app(settings))


def cohorts(outside: Context, source: AmplitudeProject) -> list[Cohort]:
    """The project's cohorts, by name."""
    from worker.vendors.amplitude.client import Amplitude

    with closing(Amplitude(outside, source)) as amplitude:
        return sorted(amplitude.cohorts(), key=lambda cohort: (cohort.name.casefold(), cohort.id))


def usage(db: Database, source: AmplitudeProject) -> tuple[Usage | None, str]:
    """What Amplitude counts of the month's downloads, or none and why: it is advice beside our own ledger."""
    from worker.vendors.amplitude.client import Amplitude

    try:
        with opened(db) as outside, closing(Amplitude(outside, source)) as amplitude:
            return amplitude.usage(), "not told"
    except SyncError as error:
        return None, f"not told ({error.code})"


def quiet(settings: Settings) -> None:
    """The log of a command that a person reads: on stderr, and no more than warnings unless asked for."""
    from config.logging import configure

    level = "WARNING" if settings.log_level == "INFO" else settings.log_level
    configure(settings.model_copy(update={"log_level": level}), "cli")
    if level != "DEBUG":  # it tells of each attempt, in its own words
        logging.getLogger("urllib3").setLevel(logging.ERROR)


@contextmanager
def _own_server(settings: Settings) -> Iterator[Settings]:
    if not settings.embedded_broker:
        raise TransientError("BROKER_UNREACHABLE")
    from cli.stack.valkey import EmbeddedValkey

    with tempfile.TemporaryDirectory(prefix="cohort-sync-") as folder:
        own = settings.model_copy(update={"data_dir": Path(folder)})
        with EmbeddedValkey(own):
            yield own
