"""A storm from its first process to its counts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.chaos import acts, disk, vendors  # noqa: F401 - they enter their kinds
from tests.chaos.clocks import clocks
from tests.chaos.failover import Primary
from tests.chaos.feed import fed
from tests.chaos.kinds import impossible, kinds
from tests.chaos.storm import Storm
from tests.contract.sandboxed import running
from tests.product import running_product, settings_for

# Waits of minutes are seconds here.
TIMING: dict[str, Any] = {
    "job_deadline_seconds": 4.0,
    "uncertain_seconds": 1.0,
    "snapshot_deadline_seconds": 6.0,
}


@contextmanager
def storm_on(database: str, seed: int, *, small_disk: bool = False) -> Iterator[Storm]:
    """A storm upon a product of its own: servers that may be killed, two workers, a receiver, and a queue.

    `small_disk`: its files are on a file system of their own, which can be full. This process needs private mounts.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cs-")))
        (home := folder / "home").mkdir()
        given, primary = {**TIMING, "worker_concurrency": 2, "retry_runs": 1}, None
        if database == "postgresql":
            primary = Primary(folder / "pg")
            stack.callback(primary.close)
            given["database_url"] = primary.url
        if small_disk:
            stack.enter_context(disk.small(home))
        sandbox = stack.enter_context(running(f"--seed={seed}", "--members=600"))
        set_clocks = stack.enter_context(clocks(folder / "clocks"))
        product = stack.enter_context(
            running_product(sandbox, settings_for(sandbox, home, **given), home, workers=2)
        )
        storm = Storm(product, seed, directory=home, clocks=set_clocks, primary=primary)
        stack.enter_context(fed(storm, home / "log"))
        yield storm


def line(storm: Storm) -> str:
    """What was done, how often, and how the runs ended."""
    done = ", ".join(f"{kind} {n}" for kind, n in sorted(storm.counts.items()))
    ends = ", ".join(f"{code} {n}" for code, n in storm.ends.most_common())
    doubts = ", ".join(f"{code} {n}" for code, n in storm.doubts.most_common()) or "none"
    return (
        f"seed {storm.seed} on {storm.database}: {storm.counts.total()} acts of {len(storm.counts)} kinds "
        f"(there are {len(kinds(storm))}; not here: {', '.join(impossible(storm)) or 'none'}) | {done} | "
        f"{storm.ends.total()} runs: {ends} | doubts about the webhook's list: {doubts} | "
        f"{storm.syncs} times a binding was looked at, member by member"
    )
