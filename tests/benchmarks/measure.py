"""Whole processes, timed from the outside: wall clock, processor time and peak memory as the kernel counts them."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall clock, seconds of processor, and MB at its peak (the largest of its children)."""

    wall: float
    cpu: float
    rss: float
    out: str


def folder() -> Path:
    """Where generated data is kept between runs; 8 GB for the largest benchmarks."""
    path = Path(os.environ.get("COHORT_SYNC_BENCH_DIR", Path(tempfile.gettempdir()) / "cohort-sync-bench"))
    path.mkdir(parents=True, exist_ok=True)
    return path


# The peak that the kernel reports for a process counts its parent's pages up to the exec: so the parent is small.
LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
told = [time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
open(sys.argv[1], "w").write(json.dumps(told))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(*command: str | Path) -> Run:
    """Run it to its end; an error ends the benchmark."""
    program = shutil.which(command[0]) or str(command[0])
    with tempfile.NamedTemporaryFile("r") as told:
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, told.name, program, *map(str, command[1:])]
        done = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(f"{command[0]} ended with {done.returncode}")
        wall, cpu, peak = json.load(told)
    return Run(wall, cpu, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), done.stdout.strip())


def processor() -> float:
    """Seconds of processor that the product's processes have taken until now, without the sandbox's."""
    spent = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "sandbox" not in process.cmdline():
                spent += sum(process.cpu_times()[:2])
    return spent


def python(module: str, *arguments: str | Path) -> Run:
    """A module of the benchmarks in a new interpreter: its imports count."""
    return run(sys.executable, "-m", f"tests.benchmarks.{module}", *arguments)


def interleaved(
    times: int, inputs: Sequence[Path] = (), **candidates: Callable[[], Run]
) -> dict[str, list[Run]]:
    """Each candidate in turn, so that what else the machine does meets all of them; the inputs are in memory."""
    found: dict[str, list[Run]] = {name: [] for name in candidates}
    for _ in range(times):
        for name, candidate in candidates.items():
            for path in inputs:
                warm(path)
            found[name].append(candidate())
    return found


def warm(path: Path) -> None:
    """Into the page cache, from where some kernels take cold pages within seconds."""
    with path.open("rb") as source:
        while source.read(1 << 22):
            pass


def show(title: str, found: dict[str, list[Run]], against: str = "") -> None:
    """Minimum, median and maximum, and the ratio of the medians to a rival's."""
    print(f"\n{title}")
    beside = "    ratio    (pairs)      cpu ratio" if against else ""
    print(f"  {'':26}{'min':>8}{'median':>8}{'max':>8}  {'cpu':>7}{'peak MB':>9}{beside}")
    rival = statistics.median(one.wall for one in found[against]) if against else 0.0
    for name, runs in found.items():
        walls = [one.wall for one in runs]
        line = f"  {name:26}{min(walls):8.2f}{statistics.median(walls):8.2f}{max(walls):8.2f}  "
        cpu, peak = statistics.median(one.cpu for one in runs), max(one.rss for one in runs)
        line += f"{cpu:7.2f}{peak:9.0f}"
        if against and name != against:
            pairs = [one.wall / other.wall for one, other in zip(runs, found[against], strict=True)]
            work = cpu / statistics.median(one.cpu for one in found[against])
            line += f"{statistics.median(walls) / rival:9.2f}{min(pairs):9.2f}-{max(pairs):.2f}{work:9.2f}"
        print(line)


def spread(call: Callable[[], object], times: int = 30) -> str:
    """A call inside this process, in milliseconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    return f"min {min(taken):6.2f}  median {statistics.median(taken):6.2f}  max {max(taken):6.2f} ms"


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Names and what was found."""
    print(f"\n{title}")
    for name, text in rows:
        print(f"  {name:44}{text}")
