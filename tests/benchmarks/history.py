"""What years leave behind: `why` after 105,000 runs of one binding, the room they take, and a forecast of a year.

The commands run as an operator runs them, each a process of its own: imports count.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert

from config.settings import Settings
from models import schema
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.setup.bindings import Timing
from models.tables import PushBatch, SyncRun
from tests.benchmarks.measure import Run, run, table
from tests.factories import make_binding, make_destination, make_source

RUNS = 105_000
CHANGED = 10  # members a run
BINDINGS = 1_000
AT_ONCE = 5_000
BEGAN = datetime(2014, 1, 1, tzinfo=UTC)
SOMEBODY = uuid.UUID(int=7)


def main() -> None:
    """SQLite, in the page cache."""
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory:
        db = Database(Settings(_env_file=None, data_dir=Path(directory)))  # type: ignore[call-arg]
        schema.upgrade(db)
        make_source(db)
        make_destination(db)
        load = os.getloadavg()[0]
        empty = db.size()
        age(db)
        grown = (db.size() - empty) / RUNS
        os.environ["COHORT_SYNC_DATA_DIR"] = directory
        asked = command("why", "old", str(SOMEBODY))
        for number in range(BINDINGS):
            timing = Timing(cron="H H * * *", timezone="Europe/Berlin")
            make_binding(db, f"daily {number}", timing=timing)
        foreseen = command("schedule", "--days", "366")
        db.dispose()
    table(
        f"{RUNS:,} runs of one binding, then {BINDINGS:,} daily bindings; load of the machine before: {load:.1f}",
        [
            ("why", shown(asked)),
            ("schedule --days 366", shown(foreseen)),
            (
                f"a run of {CHANGED} changes takes",
                f"{grown:6.0f} bytes, {grown * 365 / 1e6:.2f} MB a year of daily runs",
            ),
        ],
    )


def age(db: Database) -> None:
    """Years of runs that changed a few members each."""
    binding = make_binding(db, "old")
    for begin in range(0, RUNS, AT_ONCE):
        with db.write() as session:
            numbers = range(begin, begin + AT_ONCE)
            ended = {"binding_id": binding.id, "trigger": "schedule", "state": "succeeded", "stage": "finish"}
            session.execute(
                insert(SyncRun),
                [
                    ended
                    | {
                        "id": n + 1,
                        "scheduled_for": at,
                        "created_at": at,
                        "started_at": at,
                        "finished_at": at,
                    }
                    for n in numbers
                    for at in [BEGAN + n * timedelta(hours=1)]
                ],
            )
            taken = {"binding_id": binding.id, "data_extension_id": "de", "seq": 0, "state": "acknowledged"}
            session.execute(
                insert(PushBatch),
                [
                    taken
                    | {
                        "run_id": n + 1,
                        "direction": "exit" if n % 2 else "enter",
                        "n": CHANGED,
                        "sent_at": BEGAN + n * timedelta(hours=1),
                        "acknowledged_at": BEGAN + n * timedelta(hours=1),
                        "folded_generation": 1,
                        "keys": encode_keys(
                            [str(SOMEBODY) if k == n % 1000 else str(uuid.uuid4()) for k in range(CHANGED)]
                        ),
                    }
                    for n in numbers
                ],
            )


def command(*words: str) -> Run:
    """The product's own command."""
    return run(Path(sys.executable).with_name("cohort-sync"), *words)


def shown(one: Run) -> str:
    """A process in words."""
    return f"{one.wall:6.2f} s, {one.cpu:.2f} s of processor, {one.rss:.0f} MB"


if __name__ == "__main__":
    main()
