"""What it costs to make an acknowledged batch of 25,000 keys part of a binding's state, on both databases.

Each acknowledgement is one fenced transaction with the run's counts, durable when it returns (SQLite's
`synchronous=FULL`, PostgreSQL's `fsync`). Planning is the insertion of the batches, all in one transaction.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from sqlalchemy import select

from config.settings import Settings
from models import schema
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.direction import Direction
from models.runs import batches, claims, lifecycle
from models.tables import CohortBinding, PushBatch
from models.types import Stage, Trigger
from tests.benchmarks.measure import spread, table
from tests.factories import make_binding, make_destination, make_source
from tests.support import postgres_server

BATCHES = 60
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)


def main() -> None:
    """SQLite, then PostgreSQL."""
    dice = Random(1)
    blob = encode_keys([str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(25_000)])
    with tempfile.TemporaryDirectory() as directory, opened(Path(directory), "") as db:
        measure("SQLite", db, blob)
    with (
        tempfile.TemporaryDirectory() as directory,
        postgres_server() as url,
        opened(Path(directory), url) as db,
    ):
        measure("PostgreSQL", db, blob)


def measure(name: str, db: Database, blob: bytes) -> None:
    """One database: plan, then acknowledge one after the other."""
    make_source(db)
    make_destination(db)
    binding = make_binding(db)
    with db.write() as session:
        stored = session.get_one(CohortBinding, binding.id)
        run = lifecycle.dispatch(
            session, stored, trigger=Trigger.MANUAL, scheduled_for=NOW, now=NOW, actor="benchmark"
        )
    claim = claims.claim(db, run.id, Stage.SNAPSHOT, now=NOW, lease=3600)
    if claim is None:
        raise SystemExit("the run was not to be claimed")
    began = time.perf_counter()
    with claims.fenced(db, claim, now=NOW, lease=3600) as (session, mine):
        batches.plan(session, mine, [(Direction.ENTER, 25_000, blob)] * BATCHES, data_extension_id="de")
    planned = time.perf_counter() - began
    with db.read() as session:
        ids = iter(session.scalars(select(PushBatch.id).order_by(PushBatch.id)).all())

    def acknowledge() -> None:
        with claims.fenced(db, claim, now=NOW, lease=3600) as (session, mine):
            batches.acknowledge(session, mine, next(ids), now=NOW)

    table(
        f"a batch of 25,000 keys ({len(blob):,} bytes), {name}",
        [
            ("acknowledged, durable", spread(acknowledge, BATCHES - 5)),
            (f"planned, {BATCHES} in one transaction", f"{planned / BATCHES * 1000:6.2f} ms each"),
        ],
    )


@contextmanager
def opened(directory: Path, url: str) -> Iterator[Database]:
    """An empty, current database."""
    db = Database(Settings(_env_file=None, data_dir=directory, database_url=url))  # type: ignore[call-arg]
    schema.upgrade(db)
    yield db
    db.dispose()


if __name__ == "__main__":
    main()
