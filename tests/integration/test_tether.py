"""A tied program never outlives the one that started it, with the kernel's help and without."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cli.stack import parent_death


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def none_left(processes: list[psutil.Process]) -> Callable[[], bool]:
    return lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.parametrize("mode", ["exec", "stay"])
def test_a_tied_program_dies_with_its_parent(mode: str, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time; from cli.stack import parent_death\n"
            f"subprocess.Popen(parent_death.command('{mode}', '/bin/sleep', '100'), start_new_session=True)\n"
            "time.sleep(100)",
        ],
        cwd=tmp_path,
    )
    until(lambda: any(p.name() == "sleep" for p in below(parent.pid)))
    tied = below(parent.pid)
    assert len(tied) == (1 if mode == "exec" else 2)
    parent.kill()
    parent.wait()
    until(none_left(tied), 3)


def test_a_program_that_stays_below_hands_on_its_end() -> None:
    ended = subprocess.run(parent_death.command("stay", "/bin/sh", "-c", "exit 7"), check=False)
    assert ended.returncode == 7
    asked = subprocess.Popen(parent_death.command("stay", "/bin/sleep", "100"))
    until(lambda: any(p.name() == "sleep" for p in below(asked.pid)))
    asked.terminate()
    assert asked.wait(5) != 0


def test_a_start_after_the_parents_end_is_no_start() -> None:
    late = subprocess.run(
        [sys.executable, "-P", "-m", "cli.stack.parent_death", "999999999", "exec", "/bin/sleep", "100"],
        timeout=5,
        check=False,
    )
    assert late.returncode == -signal.SIGKILL
