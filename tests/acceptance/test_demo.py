"""`cohort-sync demo` as a person runs it, piped: it says what it did, ends with the truth, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

Demo = Callable[..., "subprocess.Popen[str]"]
WITHIN = 60.0


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Starts a demo whose temporary directory and output are the test's; at the end nothing may be left of it."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(*arguments: str) -> subprocess.Popen[str]:
        with (tmp_path / "said").open("w") as out:
            started.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "cli.stack.parent_death",
                        str(os.getpid()),
                        "run",
                        "demo",
                        *arguments,
                    ],
                    env={
                        **os.environ,
                        "TMPDIR": str(tmp_path / "tmp"),
                        "COHORT_SYNC_REDIS_URL": "redis://no.where",
                    },
                    cwd=tmp_path,
                    stdout=out,
                    stderr=out,
                    text=True,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def said(tmp_path: Path) -> str:
    return (tmp_path / "said").read_text()


def wait_for(text: str, process: subprocess.Popen[str], tmp_path: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while text not in said(tmp_path):
        assert process.poll() is None, said(tmp_path)
        assert time.monotonic() < deadline, said(tmp_path)
        time.sleep(0.05)


def all_ended(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=5)[1] == []


def test_two_cohorts_are_synced_changed_and_found_equal(demo: Demo, tmp_path: Path) -> None:
    process = demo("--members", "900", "--keep")
    wait_for("cohort-sync status", process, tmp_path)
    everything = psutil.Process(process.pid).children(recursive=True)
    assert len(everything) >= 7  # sandbox, Valkey, scheduler, worker and its pool, Flower
    text = said(tmp_path)
    assert "The data extension equals the cohorts, member by member." in text
    assert text.count("succeeded") == 4
    for attribute in ("Purchasers", "Churn Risk"):
        assert f"{attribute}: 923 members, 923 flagged true; 22 have left, 22 flagged false: equal" in text
    assert "\x1b" not in text

    exports = dict(re.findall(r"export (COHORT_SYNC_\w+)=(\S+)", text))
    status = subprocess.run(
        [sys.executable, "-P", "-m", "cli.stack.parent_death", str(os.getpid()), "run", "status"],
        env={**os.environ, **exports},
        capture_output=True,
        text=True,
        check=False,
    )
    assert status.returncode == 0, status.stderr
    assert "purchasers" in status.stdout

    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 0
    assert all_ended(everything)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_demo_that_can_not_do_its_job_says_so(demo: Demo, tmp_path: Path) -> None:
    process = demo("--members", "50")
    wait_for("Sandbox:", process, tmp_path)
    [sandbox] = [p for p in psutil.Process(process.pid).children() if "sandbox" in p.cmdline()]
    sandbox.kill()
    wait_for("The demo failed:", process, tmp_path)
    assert process.wait(WITHIN) == 1
    assert "equals" not in said(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
