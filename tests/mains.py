"""Processes of the product at a test's clock and pace, for `tests/forked.py`; all else is the product's own.

Arguments in, the exit code out; settings come from the environment.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.main import main
from config.graceful_stop import GracefulStop
from config.logging import configure
from config.settings import Settings, get_settings
from models.database import Database
from monitor import main as monitoring
from monitor.alert_loop import AlertLoop
from scheduler import main as scheduling
from scheduler import publish
from scheduler.publish import Publisher


def monitor(_arguments: list[str]) -> int:
    """`cohort-sync monitor`; what takes seconds and a minute takes a tenth and a second."""
    monitoring.LOOK_SECONDS, monitoring.STALE_SECONDS = 0.1, 1.0
    return main(["monitor"])


def scheduler(_arguments: list[str]) -> int:
    """The scheduler itself, without the command's look at the database."""
    return scheduling.main(get_settings())


def impatient_scheduler(_arguments: list[str]) -> int:
    """One that takes a message for lost after a second or two, where it takes ten or two minutes."""
    publish.STALE_EMPTY, publish.STALE_BACKLOG = timedelta(seconds=1), timedelta(seconds=2)
    return scheduling.main(get_settings())


def simulated_scheduler(arguments: list[str]) -> int:
    """A scheduler whose clock is the file that is named."""
    clock_file, settings, stop = Path(arguments[0]), Settings(_env_file=None), GracefulStop()
    stop.install()
    scheduling.Loop(
        Database(settings),
        Publisher(settings),
        tick_seconds=settings.tick_seconds,
        clock=lambda: datetime.fromtimestamp(float(clock_file.read_text()), UTC),
    ).run(stop)
    return 0


def alert_loop(arguments: list[str]) -> int:
    """One look at each of the instants that are given."""
    settings = get_settings()
    configure(settings, "monitor")
    loop = AlertLoop(settings, Database(settings, patience=4))
    for instant in arguments:
        loop.look(datetime.fromisoformat(instant), 1)
    return 0
