"""A whole sync of 2,000,000 members through queue, database and HTTP, beside bare loops over the same bodies.

Both sides talk to one sandbox in one run. The bare loops send ready-made bodies, so they pay for no snapshot, no
diff, no journal: one only sends them, the other also waits until each job has been executed, two in flight. What a
script would wait for the cohort's file, which the sandbox has to make for it as for the product, is measured too. The
sandbox answers as fast as it can (no artificial latency), on the same two cores as everything else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr

from cli.stack.stack import Stack
from config.queue import make_app, publish
from config.settings import Settings
from models.contact_keys.codec import row_bodies
from models.database import Database
from models.naming import find
from models.runs import lifecycle
from models.tables import CohortBinding, SyncRun
from models.types import Trigger
from tests.benchmarks.measure import table
from tests.factories import make_binding, make_destination, make_source
from tests.support import wait_until
from worker.context import utc_now
from worker.vendors.marketing_cloud.client import BATCH_ROWS, CONTACT_KEY

NO_LATENCY = (
    "async_absent_seconds=0",
    "async_queue_seconds=0",
    "async_execute_seconds=0",
    "amplitude_job_seconds=0",
)
PRODUCT_FIELD, RIVAL_FIELD = "Purchasers", "Churn Risk"


def main(members: int = 2_000_000) -> None:
    """First sync, the rivals, then a day with 1 % churn and an unchanged one."""
    with product(members) as (door, settings, db):
        keys = requests.get(
            f"{door['url']}/_sandbox/cohorts/purchrs/members?format=text", timeout=120
        ).text.split("\n")
        bodies = [
            row_bodies(keys[start : start + BATCH_ROWS], CONTACT_KEY, RIVAL_FIELD, True)
            for start in range(0, len(keys), BATCH_ROWS)
        ]
        first = sync(db, settings)
        sent, followed = bare_loop(door, bodies, follow=False), bare_loop(door, bodies, follow=True)
        churn(door, members, seed=7)
        daily, same = sync(db, settings), sync(db, settings)
        verify(door, daily)
        churn(door, members, seed=8)
        show(members, len(bodies), first, Bare(bare_download(door), sent, followed), daily, same)


@dataclass(frozen=True)
class Bare:
    """Seconds of the bare loops: for the cohort's file, to send the bodies, and to follow them as well."""

    downloaded: float
    sent: float
    followed: float


def churn(door: dict[str, Any], members: int, *, seed: int) -> None:
    """Another 1 % of the cohort, half in and half out."""
    requests.put(
        f"{door['url']}/_sandbox/cohorts/purchrs",
        json={"churn": {"enter": members // 200, "exit": members // 200, "seed": seed}},
        timeout=120,
    ).raise_for_status()


@contextmanager
def product(members: int) -> Iterator[tuple[dict[str, Any], Settings, Database]]:
    """The stack beside a sandbox without latency: its door, the settings, and the database with one binding."""
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory, sandbox(members) as door:
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            data_dir=Path(directory),
            flower_port=0,
            monitor_port=0,
            amplitude_base_url=door["url"],
            marketing_cloud_auth_url=door["url"],
        )
        with Stack(settings, log=Path(directory) / "log.txt") as stack:
            if not stack.wait_until_ready():
                raise SystemExit("the stack did not come up")
            db = Database(settings)
            prepare(db, door)
            yield door, settings, db


def show(members: int, bodies: int, first: Timed, bare: Bare, daily: Timed, same: Timed) -> None:
    """The figures, and what each is beside."""
    table(
        f"a whole sync of {members:,} members",
        [
            ("bare loop: the file requested, waited for and read", f"{bare.downloaded:6.2f} s"),
            ("bare loop: ready-made bodies sent", f"{bare.sent:6.2f} s, {bodies} requests"),
            ("bare loop: sent and followed to the end of each job", f"{bare.followed:6.2f} s"),
            ("first sync", str(first)),
            ("  members a second", f"{members / first.wall:10,.0f}"),
            ("  beside the loop that only sends", f"{first.wall / bare.sent:6.2f}"),
            ("  beside the loop that follows", f"{first.wall / bare.followed:6.2f}"),
            ("  beside both: file and loop", f"{first.wall / (bare.downloaded + bare.followed):6.2f}"),
            ("1 % churn", str(daily)),
            ("unchanged", str(same)),
        ],
    )


class Timed:
    """A finished run: its wall clock from dispatch to end, in seconds, and its requests."""

    def __init__(self, run: SyncRun) -> None:
        if run.finished_at is None or run.state != "succeeded":
            raise SystemExit(f"the run {run.state}: {run.error_code}")
        self.wall = (run.finished_at - run.created_at).total_seconds()
        self.run = run

    def __str__(self) -> str:
        run = self.run
        return (
            f"{self.wall:6.2f} s; +{run.entered:,} -{run.exited:,}; {run.amplitude_requests} requests to Amplitude, "
            f"{run.marketing_cloud_requests} to Marketing Cloud"
        )


def sync(db: Database, settings: Settings, name: str = "whole", *, full: bool = False) -> Timed:
    """One run of the binding through the queue, to its end."""
    now = utc_now()
    with db.write() as session:
        binding = find(session, CohortBinding, name)
        run = lifecycle.dispatch(
            session, binding, trigger=Trigger.MANUAL, scheduled_for=now, full=full, now=now, actor="bench"
        )
    return followed(db, settings, run)


def followed(db: Database, settings: Settings, run: SyncRun) -> Timed:
    """A run that was made, through the queue to its end; SystemExit if it needs a person."""

    def ended() -> SyncRun | None:
        with db.read() as session:
            found = session.get_one(SyncRun, run.id)
        return found if found.finished_at is not None or found.state == "held" else None

    publish(make_app(settings), run.id, run.stage)
    return Timed(wait_until(ended, seconds=600, pause=0.1))


def bare_download(door: dict[str, Any]) -> float:
    """Seconds to request the cohort's file, to wait for it and to read it."""
    amplitude, session = door["amplitude"], requests.Session()
    session.auth = amplitude["api_key"], amplitude["secret_key"]
    base = f"{door['url']}/api/5/cohorts"
    begun = time.perf_counter()
    wanted = session.get(f"{base}/request/purchrs", timeout=60).json()["request_id"]
    while session.get(f"{base}/request-status/{wanted}", timeout=60).status_code == requests.codes.accepted:
        time.sleep(0.01)
    session.get(f"{base}/request/{wanted}/file", timeout=120).raise_for_status()
    return time.perf_counter() - begun


def bare_loop(door: dict[str, Any], bodies: list[bytes], *, follow: bool) -> float:
    """Seconds to PUT all bodies; with `follow` until each job is complete, two in flight."""
    cloud, session = door["marketing_cloud"], requests.Session()
    token = session.post(
        f"{door['url']}/v2/token",
        json={
            "grant_type": "client_credentials",
            "client_id": cloud["client_id"],
            "client_secret": cloud["client_secret"],
        },
        timeout=60,
    ).json()
    session.headers.update(
        {"Authorization": f"Bearer {token['access_token']}", "Content-Type": "application/json"}
    )
    base = f"{token['rest_instance_url']}data/v1/async"
    flying: list[str] = []
    begun = time.perf_counter()
    for body in bodies:
        while follow and len(flying) == 2:
            poll(session, base, flying)
        answer = session.put(
            f"{base}/dataextensions/key:{cloud['data_extension_key']}/rows", data=body, timeout=120
        )
        flying.append(answer.json()["requestId"])
    while follow and flying:
        poll(session, base, flying)
    return time.perf_counter() - begun


def poll(session: requests.Session, base: str, flying: list[str]) -> None:
    """Take the oldest job out if it is complete."""
    status = session.get(f"{base}/{flying[0]}/status", timeout=60).json().get("status") or {}
    if status.get("requestStatus") == "Complete":
        flying.pop(0)
    else:
        time.sleep(0.01)


def verify(door: dict[str, Any], daily: Timed) -> None:
    """What the vendor holds is the cohort, by count: a figure for a wrong result is no figure."""
    flagged = requests.get(
        f"{door['url']}/_sandbox/rows?field={PRODUCT_FIELD}&value=true&format=count", timeout=120
    ).json()["count"]
    if flagged != daily.run.members:
        raise SystemExit(f"{flagged} rows are flagged, the cohort has {daily.run.members} members")


def prepare(db: Database, door: dict[str, Any]) -> None:
    """A source, a destination, a binding."""
    amplitude, cloud = door["amplitude"], door["marketing_cloud"]
    make_source(db, api_key=SecretStr(amplitude["api_key"]), secret_key=SecretStr(amplitude["secret_key"]))
    make_destination(db, client_id=cloud["client_id"], client_secret=SecretStr(cloud["client_secret"]))
    make_binding(db, "whole", cohort_id="purchrs", attribute=PRODUCT_FIELD, max_removal_percent=100)


@contextmanager
def sandbox(members: int, *more: str) -> Iterator[dict[str, Any]]:
    """Both vendors with no latency of their own, but for what `more` switches say."""
    switches = [word for switch in (*NO_LATENCY, *more) for word in ("--switch", switch)]
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--port", "0", "--members", str(members), *switches],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None:
            raise AssertionError
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
