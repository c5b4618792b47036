"""What a scrape of the monitor costs beside 100,000 bindings with ten runs each, 1,000 of which failed last."""

from __future__ import annotations

import logging
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import func, insert, select, update

from config.settings import Settings
from models import broker, schema
from models.database import Database
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from monitor.counters import EndedRunCounters
from monitor.main import DATABASE_SECONDS
from monitor.metrics import Collector
from tests.benchmarks.measure import spread, table
from tests.benchmarks.scheduler import BINDINGS, NIGHT, analyze, fill, on_both
from tests.support import Valkey

RUNS = 10  # one of them is `fill`'s
FAILED = 1_000
ENDED = 10_000


def main() -> None:
    """SQLite, then PostgreSQL."""
    on_both(measure, logging.CRITICAL)


def measure(name: str, settings: Settings) -> None:
    """One database, with all series that there can be."""
    db = Database(settings)
    schema.upgrade(db)
    fill(db)
    for day in range(1, RUNS):
        history(db, day)
    with db.write() as session:
        newest = session.scalar(select(func.max(SyncRun.id))) or 0
        bad = newest - BINDINGS + CohortBinding.id
        session.execute(update(SyncRun).where(SyncRun.id > newest - FAILED).values(state=RunState.FAILED))
        session.execute(
            update(CohortBinding).where(CohortBinding.id > BINDINGS - FAILED).values(bad_run_id=bad)
        )
    analyze(db)
    valkey, tally = Valkey(), EndedRunCounters()
    valkey.start()
    hasty = Database(settings, patience=DATABASE_SECONDS)
    redis = broker.redis_client(valkey.url, seconds=2.0)
    registry = CollectorRegistry()
    registry.register(Collector(hasty, redis, tally, clock=lambda: NIGHT))

    def look() -> None:
        with hasty.read() as session:
            tally.look(session)

    page = generate_latest(registry)
    lines = len(page.splitlines())
    rows = [
        (f"a scrape: {lines:,} lines, {len(page):,} bytes", spread(lambda: generate_latest(registry))),
        ("a look that finds nothing new", spread(look)),
    ]
    history(db, RUNS, ENDED)
    rows.append((f"a look that counts {ENDED:,} runs", spread(look, 1)))
    table(f"monitor, {BINDINGS:,} bindings with {RUNS} runs each, {name}", rows)
    if sum(tally.counts.runs.values()) != ENDED:
        raise SystemExit(f"{tally.counts.runs} counted of {ENDED}")
    redis.close()
    valkey.close()
    db.dispose()


def history(db: Database, day: int, bindings: int = BINDINGS) -> None:
    """A run of each binding, which took 40 seconds."""
    began = NIGHT + timedelta(days=day)
    values = {
        "trigger": Trigger.SCHEDULE,
        "scheduled_for": began,
        "state": RunState.SUCCEEDED,
        "stage": Stage.FINISH,
        "created_at": began,
        "started_at": began,
        "finished_at": began + timedelta(seconds=40),
        "acknowledged": 70,
    }
    with db.write() as session:
        session.execute(insert(SyncRun), [{"binding_id": n, **values} for n in range(1, bindings + 1)])


if __name__ == "__main__":
    main()
