"""`cohort-sync verify` of 1,000,000 members, beside a bare loop that only fetches the same pages from the same sandbox.

The command is a process of its own: interpreter, token, pages, spilling, the stored members written out and the diff
all count. The sandbox answers as fast as it can, on the same two cores.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import requests

from config.settings import Settings
from tests.benchmarks import measure
from tests.benchmarks.whole import product, sync
from tests.integration.door import COMMAND
from tests.support import environment

TIMES = 3


def main(members: int = 1_000_000) -> None:
    """One first sync, then reading back."""
    with product(members) as (door, settings, db):
        rows = sync(db, settings).run.members
        bare, verified = [], []
        for _ in range(TIMES):
            bare.append(bare_loop(door))
            verified.append(verify(settings))
    for run in verified:
        if '"equal": true' not in run.out:
            raise SystemExit(run.out)
    fastest = min(verified, key=lambda run: run.wall)
    measure.table(
        f"reading {rows:,} rows back, {rows / 2_500:.0f} pages, {TIMES} times",
        [
            ("bare loop over the pages", " ".join(f"{seconds:6.2f}" for seconds in bare) + " s"),
            ("cohort-sync verify", " ".join(f"{run.wall:6.2f}" for run in verified) + " s"),
            ("  rows a second", f"{rows / fastest.wall:10,.0f}"),
            ("  processor", f"{fastest.cpu:6.2f} s"),
            ("  peak", f"{max(run.rss for run in verified):6.0f} MB"),
        ],
    )


def verify(settings: Settings) -> measure.Run:
    """The command as a person types it, on these settings."""
    variables = [f"{name}={value}" for name, value in environment(settings).items()]
    return measure.run("env", *variables, COMMAND, "verify", "whole", "--json")


def bare_loop(door: dict[str, Any]) -> float:
    """Seconds to fetch every page and throw it away."""
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
    session.headers["Authorization"] = f"Bearer {token['access_token']}"
    base = f"{token['rest_instance_url']}data"
    link = f"/v1/customobjectdata/key/{cloud['data_extension_key']}/rowset?$page=1&$pagesize=2500"
    began = time.perf_counter()
    while link:
        link = session.get(base + link, timeout=60).json()["links"].get("next", "")
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
