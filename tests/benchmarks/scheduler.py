"""The scheduler with 100,000 bindings: what an idle tick costs, and 10,000 bindings due in one minute.

Both databases keep their promise of durability here (SQLite's `synchronous=FULL`, PostgreSQL's `fsync`), the broker
is a real Valkey, and one scheduler does all the work in this process. Rival figures there are none: no other
scheduler writes a row for each occurrence.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import func, insert, select, text

from config.settings import Settings
from models import schema
from models.database import Database
from models.naming import schedule_key
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from scheduler.cron import Schedule
from scheduler.main import Loop
from scheduler.publish import Publisher
from tests.benchmarks.measure import spread, table
from tests.factories import make_destination, make_source
from tests.support import QUEUE_KEY, Valkey, postgres_server

BINDINGS = 100_000
DUE = 10_000
NIGHT = datetime(2026, 3, 2, 1, tzinfo=UTC)
MORNING = datetime(2026, 3, 2, 6, tzinfo=UTC)


def main() -> None:
    """SQLite, then PostgreSQL."""
    on_both(measure, logging.WARNING)


def on_both(measured: Callable[[str, Settings], None], level: int) -> None:
    """Measure with SQLite, then with PostgreSQL, each in an empty directory; what is logged below `level` is not."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    with tempfile.TemporaryDirectory() as directory:
        measured("SQLite", Settings(_env_file=None, data_dir=Path(directory), database_url=""))  # type: ignore[call-arg]
    with tempfile.TemporaryDirectory() as directory, postgres_server() as url:
        measured("PostgreSQL", Settings(_env_file=None, data_dir=Path(directory), database_url=url))  # type: ignore[call-arg]


def measure(name: str, settings: Settings) -> None:
    """One database from idle to its morning rush."""
    with running(settings) as (db, loop, valkey, clock):
        fill(db)
        analyze(db)
        rows = [("idle tick", spread(loop.once, 100))]
        clock[0] = MORNING
        began, worked = time.perf_counter(), time.process_time()
        ticks = 1
        while loop.once():
            ticks += 1
        taken, cpu = time.perf_counter() - began, time.process_time() - worked
        sent = valkey.client.llen(QUEUE_KEY)
        rows.append(
            (
                f"{DUE:,} due at once: {sent:,} published",
                f"{taken:6.2f} s, {cpu:.2f} s of processor, {ticks} ticks",
            )
        )
        rows.append((f"idle tick, {DUE:,} runs wait, old statistics", spread(loop.once, 30)))
        analyze(db)
        rows.append((f"idle tick, {DUE:,} runs wait, statistics renewed", spread(loop.once, 30)))
        with db.read() as session:
            queued = session.scalar(select(func.count()).where(SyncRun.state == RunState.QUEUED))
        if not sent == queued == DUE:
            raise SystemExit(f"{queued} queued and {sent} published of {DUE}")
        table(f"scheduler, {BINDINGS:,} bindings with a run each in their history, {name}", rows)


def analyze(db: Database) -> None:
    """What PostgreSQL does by itself within a minute (autovacuum_naptime) of such a change."""
    if db.dialect == "postgresql":
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))


@contextmanager
def running(settings: Settings) -> Iterator[tuple[Database, Loop, Valkey, list[datetime]]]:
    """A scheduler on an empty database and broker, at night; its clock stands in the list."""
    valkey = Valkey()
    valkey.start()
    db = Database(settings)
    schema.upgrade(db)
    publisher = Publisher(settings.model_copy(update={"redis_url": valkey.url}))
    clock = [NIGHT]
    try:
        yield db, Loop(db, publisher, settings.tick_seconds, lambda: clock[0]), valkey, clock
    finally:
        publisher.close()
        db.dispose()
        valkey.close()


def fill(db: Database, bindings: int = BINDINGS) -> None:
    """Bindings that are due from seven to midnight, but for those of six o'clock."""
    source, destination = make_source(db), make_destination(db)
    rows = []
    for n in range(1, bindings + 1):
        cron = "0 6 * * *" if n <= DUE else f"{n % 60} {7 + n % 17} * * *"
        occurrence = Schedule.parse(cron, "UTC", schedule_key(f"binding {n}")).next_after(NIGHT)
        rows.append(
            {
                "id": n,
                "name": f"binding {n}",
                "name_key": f"binding {n}",
                "project_id": source.id,
                "destination_id": destination.id,
                "cohort_id": f"c{n}",
                "attribute": f"flag {n}",
                "attribute_key": f"flag {n}",
                "cron": cron,
                "timezone": "UTC",
                "overlap": "skip",
                "catchup": "latest",
                "catchup_window_seconds": 86_400,
                "jitter_seconds": 0,
                "paused": False,
                "next_occurrence": occurrence,
                "next_due_at": occurrence,
                "created_at": NIGHT,
            }
        )
    history = [
        {
            "binding_id": n,
            "trigger": Trigger.SCHEDULE,
            "scheduled_for": MORNING - timedelta(days=1),
            "state": RunState.SUCCEEDED,
            "stage": Stage.FINISH,
            "published_at": NIGHT,
            "created_at": NIGHT,
            "finished_at": NIGHT,
        }
        for n in range(1, bindings + 1)
    ]
    with db.write() as session:
        session.execute(insert(CohortBinding), rows)
        session.execute(insert(SyncRun), history)


if __name__ == "__main__":
    main()
