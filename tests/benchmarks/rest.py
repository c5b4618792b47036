"""What an installation without a binding takes: the memory of an idle `up`, and the seconds of a short command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.benchmarks import whole
from tests.benchmarks.measure import interleaved, run, show, table
from tests.support import environment as variables_of

SECONDS = 30.0
COMMAND = Path(sys.executable).with_name("cohort-sync")


def main() -> None:
    """Both of them, in a data directory of their own."""
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory:
        memory(Path(directory))
        place = f"COHORT_SYNC_DATA_DIR={directory}"
        found = interleaved(
            9,
            version=lambda: run("env", place, COMMAND, "--version"),
            status=lambda: run("env", place, COMMAND, "status"),
        )
    show("commands, of an empty installation", found)
    with whole.product(1_000) as (door, settings, db):
        whole.sync(db, settings)
        variables = [f"{name}={value}" for name, value in variables_of(settings).items()]
        runs = []
        for seed in range(9):
            whole.churn(door, 1_000, seed=seed)
            runs.append(run("env", *variables, COMMAND, "run", "whole", "--wait"))
    spent = " ".join(f"{one.cpu:.2f}" for one in sorted(runs, key=lambda one: one.cpu))
    table("`run --wait` beside a running stack", [("processor of its own", f"{spent} s")])


def memory(directory: Path) -> None:
    """Each process's own and its part of what is shared (PSS), in MB."""
    given = {"DATA_DIR": str(directory), "FLOWER_PORT": "0", "MONITOR_PORT": "0"}
    environment = os.environ | {f"COHORT_SYNC_{name}": value for name, value in given.items()}
    begun = time.monotonic()
    with subprocess.Popen([COMMAND, "up"], env=environment, stdout=subprocess.PIPE, text=True) as up:
        try:
            for line in up.stdout or ():
                if line.startswith("ready"):
                    break
            time.sleep(max(0.0, begun + SECONDS - time.monotonic()))
            here = psutil.Process(up.pid)
            held = [
                (one.name(), one.memory_full_info().pss / 1e6)
                for one in (here, *here.children(recursive=True))
            ]
        finally:
            up.terminate()
    rows = [(name, f"{pss:6.0f} MB") for name, pss in [*held, ("together", sum(pss for _, pss in held))]]
    table(f"the memory (PSS) of an idle `up`, {SECONDS:.0f} s after its start", rows)
