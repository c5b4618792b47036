"""Many cohorts in one data extension: their runs start together and share its two job slots.

The ideal is two slots that are busy from the first moment to the last: the jobs' lengths, halved. `ratio` is the time
from the first dispatch to the last end, beside it. Claims and requests to Marketing Cloud are counted a run, processor
seconds are those of the product's processes, without the sandbox's.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr
from sqlalchemy import func, select

from cli.stack.stack import Stack
from config.queue import make_app, publishing
from config.settings import Settings
from models.database import Database
from models.runs import lifecycle
from models.tables import CohortBinding, PushBatch, SyncRun
from models.types import BatchState, RunState, Stage, Trigger
from tests.benchmarks.measure import processor, table
from tests.benchmarks.whole import sandbox
from tests.factories import make_binding, make_destination, make_source
from tests.support import postgres_server, wait_until
from worker.context import utc_now

MEMBERS = 1_000
SLOTS = 2
PAUSE_SECONDS = 3.0
ENDS_WITHIN = 1_200.0


@dataclass(frozen=True)
class Product:
    """A stack beside a sandbox, and its database."""

    url: str
    keys: dict[str, dict[str, str]]
    settings: Settings
    db: Database
    stack: Stack


@contextmanager
def product(job_seconds: float, database: str, *switches: str) -> Iterator[Product]:
    """A stack with two worker processes; a job of the vendor's takes `job_seconds`, whatever else it does."""
    slow = (f"async_queue_seconds={job_seconds}", "async_order=parallel", *switches)
    with (
        tempfile.TemporaryDirectory(prefix="cs-bench-") as directory,
        database_url(database) as url,
        sandbox(MEMBERS, *slow) as door,
    ):
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            data_dir=Path(directory) / "data",
            database_url=url,
            flower_port=0,
            monitor_port=0,
            worker_concurrency=2,
            amplitude_base_url=door["url"],
            marketing_cloud_auth_url=door["url"],
        )
        with Stack(settings, log=Path(directory) / "log.txt") as stack:
            if not stack.wait_until_ready():
                raise SystemExit("the stack did not come up")
            db = Database(settings)
            amplitude = door["amplitude"]
            make_source(
                db, api_key=SecretStr(amplitude["api_key"]), secret_key=SecretStr(amplitude["secret_key"])
            )
            yield Product(door["url"], door, settings, db, stack)
            db.dispose()


@contextmanager
def database_url(database: str) -> Iterator[str]:
    """Empty for SQLite."""
    if database == "sqlite":
        yield ""
    else:
        with postgres_server() as url:
            yield url


def bind(
    made: Product, names: list[str], *, destinations: int = 1, destination: str = "", cohort: str = "purchrs"
) -> None:
    """A binding and an attribute for each name, in turn on each of so many new destinations, or on one there is."""
    cloud = made.keys["marketing_cloud"]
    units = (
        {} if destinations == 1 else {f"engage {number}": 1_000 + number for number in range(destinations)}
    )
    for number in range(0 if destination else destinations):
        make_destination(
            made.db,
            f"engage {number}",
            subdomain=f"mc{number:026d}",
            account_id=str(units[f"engage {number}"]) if units else None,
            client_id=cloud["client_id"],
            client_secret=SecretStr(cloud["client_secret"]),
        )
    fields = [{"name": name, "type": "Boolean"} for name in names]
    if not units:
        change(made, "data-extensions/Amplitude Engage", add_fields=fields)
    else:  # a business unit each, with a data extension of that name
        change(made, "package", accounts=list(units.values()))
        key = {"name": "Contact Key", "type": "Text", "length": 100, "primary_key": True, "nullable": False}
        for name, unit in units.items():
            change(made, f"data-extensions/{name}", fields=[key, *fields], account_id=unit)
            change(made, f"data-extensions/{name}", name="Amplitude Engage")
    for number, name in enumerate(names):
        here = destination or f"engage {number % destinations}"
        make_binding(made.db, name, destination=here, cohort_id=cohort, attribute=name)


def change(made: Product, path: str, **values: Any) -> None:
    """Arrange something at the vendors."""
    requests.put(f"{made.url}/_sandbox/{path}", json=values, timeout=60).raise_for_status()


def start(made: Product, names: list[str]) -> None:
    """One run of each, dispatched together."""
    now = utc_now()
    with made.db.write() as session:
        bound = session.scalars(select(CohortBinding).where(CohortBinding.name.in_(names))).all()
        runs = [
            lifecycle.dispatch(
                session, one, trigger=Trigger.MANUAL, scheduled_for=now, now=now, actor="bench"
            ).id
            for one in bound
        ]
    with publishing(make_app(made.settings)) as send:
        for run in runs:
            send(run, Stage.SNAPSHOT)


def ended(made: Product) -> list[SyncRun]:
    """All runs, once each has succeeded."""
    limit = time.monotonic() + ENDS_WITHIN
    while time.monotonic() < limit:
        with made.db.read() as session:
            left = session.scalar(select(SyncRun.id).where(SyncRun.finished_at.is_(None)).limit(1))
            if left is None:
                found = list(session.scalars(select(SyncRun)))
                break
        time.sleep(0.2)
    else:
        raise SystemExit("the runs did not end")
    bad = [f"{run.state} {run.error_code}" for run in found if run.state != RunState.SUCCEEDED]
    if bad:
        raise SystemExit(f"{len(bad)} runs did not succeed: {bad[0]}")
    return found


def together(bindings: int, job_seconds: float, database: str = "sqlite", *, destinations: int = 1) -> None:
    """So many bindings on one data extension."""
    names = [f"Flag {number}" for number in range(bindings)]
    load = os.getloadavg()[0]
    with product(job_seconds, database) as made:
        bind(made, names, destinations=destinations)
        used = processor()
        start(made, names)
        runs = ended(made)
        used = processor() - used
        with made.db.read() as session:
            jobs = list(session.scalars(select(PushBatch).order_by(PushBatch.sent_at)))
    wall = (max(run.finished_at for run in runs) - min(run.created_at for run in runs)).total_seconds()  # type: ignore[type-var]
    ideal = bindings * job_seconds / SLOTS
    rows = [
        ("all ended after", f"{wall:7.1f} s"),
        ("runs a second", f"{bindings / wall:7.1f}"),
        ("claims a run", f"{statistics.mean(run.fence for run in runs):7.1f}"),
        (
            "requests to Marketing Cloud a run",
            f"{statistics.mean(r.marketing_cloud_requests for r in runs):7.1f}",
        ),
        ("processor a run, without the sandbox", f"{used / bindings:7.3f} s"),
        ("load of the machine before", f"{load:7.1f}"),
    ]
    if ideal:
        rows += where_it_goes(jobs, job_seconds, min(run.created_at for run in runs))
        rows.insert(1, ("beside two busy slots", f"{wall / ideal:7.2f} (ideal {ideal:.0f} s)"))
    where = "" if destinations == 1 else f" on {destinations} destinations"
    table(f"{bindings} bindings of {MEMBERS:,}{where}, jobs of {job_seconds:g} s, {database}", rows)


def beside_a_large(small: int = 30, members: int = 2_000_000, job_seconds: float = 2.0) -> None:
    """One binding of `members` and, while it pushes, a small one every three seconds."""
    names = [f"Flag {number}" for number in range(small)]
    with product(job_seconds, "sqlite") as made:
        requests.put(
            f"{made.url}/_sandbox/cohorts/large",
            json={"generate": {"count": members, "seed": 5}},
            timeout=300,
        ).raise_for_status()
        bind(made, names)
        bind(made, ["Large"], destination="engage 0", cohort="large")
        start(made, ["Large"])
        wait_until(lambda: batches(made, BatchState.ACKNOWLEDGED) > 0, seconds=300)
        for name in names:
            start(made, [name])
            time.sleep(PAUSE_SECONDS)
        runs = {run.binding.name: run for run in ended(made)}
        with made.db.read() as session:
            jobs = list(session.scalars(select(PushBatch)))
    large = runs.pop("Large")
    taken = [(run.finished_at - run.created_at).total_seconds() for run in runs.values() if run.finished_at]
    first, last = min(run.created_at for run in runs.values()), max(ended_at(run) for run in runs.values())
    share = {True: 0.0, False: 0.0}
    for job in jobs:
        share[job.run_id == large.id] += within(job, first, last)
    table(
        f"{small} small bindings beside one of {members:,}, jobs of {job_seconds:g} s",
        [
            (
                "a small one ended after its start",
                f"{statistics.median(taken):7.1f} s, at most {max(taken):.1f}",
            ),
            ("slots that the large one had meanwhile", f"{100 * share[True] / sum(share.values()):7.0f} %"),
            (
                "slots that were busy meanwhile",
                f"{sum(share.values()) / (last - first).total_seconds():7.2f} of {SLOTS}",
            ),
            ("the large one ended after", f"{(ended_at(large) - large.created_at).total_seconds():7.1f} s"),
        ],
    )


def batches(made: Product, state: BatchState) -> int:
    """How many there are in that state."""
    with made.db.read() as session:
        return session.scalar(select(func.count()).where(PushBatch.state == state)) or 0


def ended_at(run: SyncRun) -> datetime:
    """The run's end."""
    if run.finished_at is None:
        raise AssertionError
    return run.finished_at


def within(job: PushBatch, first: datetime, last: datetime) -> float:
    """Seconds that the job had a slot between two instants."""
    if job.sent_at is None or job.acknowledged_at is None:
        return 0.0
    return max(0.0, (min(last, job.acknowledged_at) - max(first, job.sent_at)).total_seconds())


def where_it_goes(jobs: list[PushBatch], job_seconds: float, begun: datetime) -> list[tuple[str, str]]:
    """When the first job was sent, how late an end was seen, and how long a slot stayed empty then."""
    sent = [job.sent_at for job in jobs if job.sent_at is not None]
    seen = sorted(job.acknowledged_at for job in jobs if job.acknowledged_at is not None)
    lengths = [
        (job.acknowledged_at - job.sent_at).total_seconds() - job_seconds
        for job in jobs
        if job.sent_at is not None and job.acknowledged_at is not None
    ]
    # Every job but the first ones fills a slot that an acknowledgement has freed, in their order.
    empty = [(later - freed).total_seconds() for freed, later in zip(seen, sent[SLOTS:], strict=False)]
    return [
        ("first job sent after", f"{(sent[0] - begun).total_seconds():7.2f} s"),
        ("from a job's end to its acknowledgement", _shown(lengths)),
        ("from an acknowledgement to the next job", _shown(empty)),
    ]


def _shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):7.3f} s, at most {max(seconds):.3f}"


if __name__ == "__main__":
    together(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:4], destinations=int((*sys.argv[4:], "1")[0]))
