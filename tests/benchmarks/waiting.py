"""Two thousand runs that wait on a vendor at once: what a new short run waits for a worker meanwhile.

All of them are due together on two worker processes. Amplitude's one job for their cohort takes ten minutes, and its
limits (60 requests in ten minutes) turn most polls into waiting. Every few seconds a short run of another source
arrives, with a file of its own; measured is from its dispatch to its first claim, and to its end. Nothing is
simulated but the vendors. A rival that sleeps on the vendor in its worker (`time.sleep` between polls in a task)
would start the short run after ten minutes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from io import BytesIO
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import func, insert, select

from cli.stack.stack import Stack
from config.queue import make_app, publish
from config.settings import Settings
from models.database import Database
from models.membership import snapshots
from models.naming import find
from models.runs import lifecycle
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from tests.benchmarks.measure import table
from tests.benchmarks.whole import sandbox
from tests.factories import make_binding, make_destination, make_source
from tests.support import postgres_server, wait_until
from worker.context import utc_now

SHORT_RUNS = 20
PAUSE_SECONDS = 3.0


def main(waiting: int = 2_000) -> None:
    """SQLite, then PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory:
        measure(f"{waiting:,} runs wait on Amplitude, SQLite", waiting, Path(directory), "")
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory, postgres_server() as url:
        measure(f"{waiting:,} runs wait on Amplitude, PostgreSQL", waiting, Path(directory), url)


def measure(title: str, waiting: int, directory: Path, url: str) -> None:
    """One database."""
    with sandbox(1_000, "amplitude_job_seconds=600") as door:
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            data_dir=directory,
            database_url=url,
            flower_port=0,
            monitor_port=0,
            worker_concurrency=2,
            amplitude_base_url=door["url"],
            marketing_cloud_auth_url=door["url"],
        )
        with Stack(settings, log=directory / "log.txt") as stack:
            if not stack.wait_until_ready():
                raise SystemExit("the stack did not come up")
            db = Database(settings)
            keys = door["amplitude"]
            for name in ("slow", "quick"):
                make_source(
                    db, name, api_key=SecretStr(keys["api_key"]), secret_key=SecretStr(keys["secret_key"])
                )
            cloud = door["marketing_cloud"]
            make_destination(
                db, client_id=cloud["client_id"], client_secret=SecretStr(cloud["client_secret"])
            )
            make_binding(db, "short", source="quick", cohort_id="purchrs", attribute="Purchasers")
            begun = time.perf_counter()
            fill(db, waiting)
            wait_until(lambda: states(db)[RunState.QUEUED] == 0, seconds=600, pause=0.2)
            settled = time.perf_counter() - begun
            found = [short(db, settings, number) for number in range(SHORT_RUNS)]
            left = states(db)
            db.dispose()
    rows = [("until all were seen by a worker and wait", f"{settled:6.1f} s")]
    rows += [
        (name, spread([one[at] for one in found])) for at, name in enumerate(("claimed after", "ended after"))
    ]
    rows.append(("states at the end", ", ".join(f"{n:,} {state}" for state, n in sorted(left.items()))))
    table(title, rows)


def fill(db: Database, n: int) -> None:
    """Runs of as many bindings, due now."""
    now = utc_now()
    with db.write() as session:
        known = find(session, CohortBinding, "short")
        base = {
            "project_id": 1,
            "destination_id": known.destination_id,
            "cohort_id": "churnrk",
            "timezone": "UTC",
            "overlap": "skip",
            "catchup": "latest",
            "catchup_window_seconds": 0,
            "jitter_seconds": 0,
            "paused": False,
            "created_at": now,
        }
        names = [f"waiting {number}" for number in range(n)]
        texts = ("name", "name_key", "attribute", "attribute_key")
        session.execute(insert(CohortBinding), [base | dict.fromkeys(texts, name) for name in names])
        ids = session.scalars(select(CohortBinding.id).where(CohortBinding.id != known.id)).all()
        due = {"trigger": Trigger.SCHEDULE, "scheduled_for": now, "created_at": now}
        session.execute(insert(SyncRun), [due | {"binding_id": one} for one in ids])


def states(db: Database) -> Counter[str]:
    """How many runs are in which state."""
    with db.read() as session:
        return Counter(
            dict(session.execute(select(SyncRun.state, func.count()).group_by(SyncRun.state)).all())
        )  # type: ignore[arg-type]


def short(db: Database, settings: Settings, number: int) -> tuple[float, float]:
    """Dispatch a short run; seconds to its first claim and to its end."""
    time.sleep(PAUSE_SECONDS)
    now = utc_now()
    body = "user_id\n" + "".join(f"u-{number}-{n}\n" for n in range(10))
    with db.write() as session:
        binding = find(session, CohortBinding, "short")
        file = snapshots.store_upload(session, binding, BytesIO(body.encode()), now=now)
        given = {"trigger": Trigger.MANUAL, "scheduled_for": now, "snapshot_id": file.id}
        run = lifecycle.dispatch(session, binding, now=now, actor="bench", **given)  # type: ignore[arg-type]
    publish(make_app(settings), run.id, Stage.SNAPSHOT)

    def ended() -> SyncRun | None:
        with db.read() as session:
            row = session.get_one(SyncRun, run.id)
        return row if row.finished_at is not None else None

    row = wait_until(ended, seconds=300, pause=0.05)
    if row.state != RunState.SUCCEEDED:
        raise SystemExit(f"the run {row.state}: {row.error_code}")
    return _since(row.started_at, now), _since(row.finished_at, now)


def _since(instant: datetime, begin: datetime) -> float:
    return (instant - begin).total_seconds()


def spread(seconds: list[float]) -> str:
    """The smallest, the middle, the largest."""
    return f"min {min(seconds):5.2f}  median {statistics.median(seconds):5.2f}  max {max(seconds):5.2f} s"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
