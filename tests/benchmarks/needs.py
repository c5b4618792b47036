"""What a watchman's look costs beside 100,000 bindings: all of them well, 10,000 failed, and no scheduler for a day."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from pydantic import SecretStr
from sqlalchemy import update

from config.settings import Settings
from models import schema
from models.database import Database
from models.observability import alerts
from models.tables import CohortBinding, SyncRun
from models.types import RunState
from monitor.alert_loop import AlertLoop
from tests.benchmarks.measure import spread, table
from tests.benchmarks.scheduler import BINDINGS, DUE, NIGHT, analyze, fill, on_both
from tests.ears import Ear

PATIENCE = 4.0  # the monitor's


def main() -> None:
    """SQLite, then PostgreSQL."""
    on_both(measure, logging.CRITICAL)


def measure(name: str, settings: Settings) -> None:
    """One database, from all is well to nothing is."""
    ear = Ear()
    settings = settings.model_copy(update={"notify_urls": SecretStr(ear.url), "notify_min_seconds": 0})
    db = Database(settings)
    schema.upgrade(db)
    fill(db)
    analyze(db)
    watchman = AlertLoop(settings, Database(settings, patience=PATIENCE))
    now = NIGHT

    def status() -> None:
        with db.read() as session:
            alerts.current(session, now, schedulers=1)

    def look(schedulers: int = 1) -> None:
        nonlocal now
        now += timedelta(seconds=10)
        watchman.look(now, schedulers)

    rows = [("all well: the needs", spread(status)), ("all well: a look", spread(look))]
    with db.write() as session:
        failed = {
            "state": RunState.FAILED,
            "error_code": "MC_SCOPES",
            "error_message": "x",
            "error_remedy": "y",
        }
        session.execute(update(SyncRun).where(SyncRun.binding_id <= DUE).values(**failed))
        session.execute(
            update(CohortBinding).where(CohortBinding.id <= DUE).values(bad_run_id=CohortBinding.id)
        )
    rows += [
        (f"{DUE:,} failed: the needs", spread(status, 10)),
        (f"{DUE:,} failed: the look that notes them", once(look)),
        (f"{DUE:,} failed: the looks until they are told", once(lambda: [look() for _ in range(3)])),
        (f"{DUE:,} failed: a look after that", spread(look, 10)),
    ]
    now += timedelta(days=1)
    rows.append((f"and {BINDINGS:,} overdue: a look", spread(lambda: look(0), 10)))
    for _ in range(3):
        look(0)
    rows.append((f"and {BINDINGS:,} overdue: a look after that", spread(lambda: look(0), 3)))
    rows.append(("messages", ", ".join(title.removeprefix("cohort-sync: ") for title in ear.titles)))
    table(f"what needs a person, {BINDINGS:,} bindings, {name}", rows)
    db.dispose()
    ear.vanish()


def once(call: Callable[[], object]) -> str:
    """What can be done only once."""
    began = time.perf_counter()
    call()
    return f"{(time.perf_counter() - began) * 1000:6.0f} ms"


if __name__ == "__main__":
    main()
