"""What years leave behind: `why` after 105,000 runs of one binding, the room they take, and a forecast of a year.

The commands run as an operator runs them, each a process of its own: imports count.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from sqlalchemy import insert, select

from config.settings import Settings
from models import schema
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.setup.bindings import Timing
from models.tables import CohortBinding, PushBatch, SyncRun
from tests.benchmarks import whole
from tests.benchmarks.measure import Run, processor, run, table
from tests.factories import make_binding, make_destination, make_source

RUNS = 105_000
CHANGED = 10  # members a run
MEMBERS, TIMES = 1_000, 20
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
        age(db, make_binding(db, "old"))
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


def runs() -> None:
    """A run of a binding that has had 105,000, beside one of a binding that has had none."""
    with whole.product(MEMBERS) as (door, settings, db):
        aged = make_binding(
            db, "aged", cohort_id="churnrk", attribute=whole.RIVAL_FIELD, max_removal_percent=100
        )
        first = whole.sync(db, settings).run
        with db.read() as session:
            extension = session.scalars(select(PushBatch.data_extension_id).limit(1)).one()
        age(db, aged, after=first.id, extension=extension)
        cohorts = {"whole": "purchrs", "aged": aged.cohort_id}
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in cohorts}
        load = os.getloadavg()[0]
        for number in range(TIMES + 2):
            for name, cohort in cohorts.items():
                change = {"churn": {"enter": CHANGED // 2, "exit": CHANGED // 2, "seed": number}}
                requests.put(
                    f"{door['url']}/_sandbox/cohorts/{cohort}", json=change, timeout=60
                ).raise_for_status()
                before = processor()
                wall = whole.sync(db, settings, name).wall
                took[name].append((wall, processor() - before))
    figures = {
        name: [statistics.median(each) for each in zip(*rows[2:], strict=True)] for name, rows in took.items()
    }
    table(
        f"a run after {RUNS:,} of its binding, beside one of a new binding, {TIMES} times; load before: {load:.1f}",
        [
            (name, f"{wall:6.3f} s, {processor:.3f} s of processor")
            for name, (wall, processor) in (("new", figures["whole"]), ("aged", figures["aged"]))
        ]
        + [
            (f"ratio of {what}", f"{figures['aged'][at] / figures['whole'][at]:6.2f}")
            for at, what in enumerate(("wall clock", "processor seconds"))
        ],
    )


def age(db: Database, binding: CohortBinding, *, after: int = 0, extension: str = "de") -> None:
    """Years of runs that changed a few members each, with numbers beyond `after`."""
    for begin in range(0, RUNS, AT_ONCE):
        with db.write() as session:
            numbers = range(begin, begin + AT_ONCE)
            ended = {"binding_id": binding.id, "trigger": "schedule", "state": "succeeded", "stage": "finish"}
            session.execute(
                insert(SyncRun),
                [
                    ended
                    | {
                        "id": after + n + 1,
                        "scheduled_for": at,
                        "created_at": at,
                        "started_at": at,
                        "finished_at": at,
                    }
                    for n in numbers
                    for at in [BEGAN + n * timedelta(hours=1)]
                ],
            )
            taken = {
                "binding_id": binding.id,
                "data_extension_id": extension,
                "seq": 0,
                "state": "acknowledged",
            }
            session.execute(
                insert(PushBatch),
                [
                    taken
                    | {
                        "run_id": after + n + 1,
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
