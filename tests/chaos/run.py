"""A storm from its first process to its counts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.chaos import acts, vendors  # noqa: F401 - they enter their kinds
from tests.chaos.kinds import kinds
from tests.chaos.storm import Storm
from tests.contract.sandboxed import running
from tests.product import running_product, settings_for
from tests.support import postgres_server

# Waits of minutes are seconds here.
TIMING: dict[str, Any] = {
    "job_deadline_seconds": 4.0,
    "uncertain_seconds": 1.0,
    "snapshot_deadline_seconds": 6.0,
}


@contextmanager
def storm_on(database: str, seed: int) -> Iterator[Storm]:
    """A storm upon a product of its own: servers that may be killed, two workers, and a queue."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cs-")))
        given, url = {**TIMING, "worker_concurrency": 2, "retry_runs": 1}, ""
        if database == "postgresql":
            url = given["database_url"] = stack.enter_context(postgres_server())
        sandbox = stack.enter_context(running(f"--seed={seed}", "--members=600"))
        settings = settings_for(sandbox, directory, **given)
        yield Storm(stack.enter_context(running_product(sandbox, settings, directory, workers=2)), seed, url)


def line(storm: Storm) -> str:
    """What was done, how often, and how the runs ended."""
    done = ", ".join(f"{kind} {n}" for kind, n in sorted(storm.counts.items()))
    ends = ", ".join(f"{code} {n}" for code, n in storm.ends.most_common())
    return (
        f"seed {storm.seed} on {storm.database}: {storm.counts.total()} acts of {len(storm.counts)} kinds "
        f"(there are {len(kinds(storm.database))}) | {done} | {storm.ends.total()} runs: {ends} | "
        f"{storm.syncs} times a binding was looked at, member by member"
    )
