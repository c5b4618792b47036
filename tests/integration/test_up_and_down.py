"""The stack in the background: started, looked at, followed and ended by commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from cli.stack import logs, running
from config.settings import Settings
from tests.integration.door import Door, ended
from tests.support import wait_until

WITHIN = 100.0


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def door(settings: Settings, tmp_path: Path) -> Iterator[Door]:
    door = Door(settings, tmp_path)
    door.environment |= {"COHORT_SYNC_FLOWER_PORT": "0", "COHORT_SYNC_MONITOR_PORT": "0"}
    yield door
    if (found := running.find(settings.data_dir)) is not None:
        os.kill(found.pid, signal.SIGKILL)


@pytest.mark.timeout(300)  # a dozen processes, one after the other
def test_a_stack_in_the_background_from_its_start_to_its_end(door: Door, settings: Settings) -> None:
    with door.start("up", "--detach") as process:
        said = ended(process, WITHIN)
    assert said.code == 0, said.out + said.err
    assert said.out.endswith("ready; `cohort-sync down` stops it\n")
    here = running.find(settings.data_dir)
    assert here is not None
    assert f"Flower    {here.flower}\n" in said.out
    everything = [psutil.Process(here.pid), *psutil.Process(here.pid).children(recursive=True)]
    assert {"cs-scheduler", "cs-worker-1", "cs-flower", "cs-monitor"} <= {one.name() for one in everything}

    assert f"Here: Flower {here.flower}, metrics {here.metrics}" in door.ok("status").out
    assert door.ok("status", "--json").json["here"] == {
        "pid": here.pid,
        "flower": here.flower,
        "metrics": here.metrics,
    }
    second = door("up", "--detach")
    assert second.code == 2
    assert (
        f"ALREADY_RUNNING: A stack is already running on this data directory (process {here.pid})"
        in second.err
    )

    told = [json.loads(line) for line in door.ok("logs", "scheduler").out.splitlines()]
    assert [one["event"] for one in told] == ["scheduler_started"]
    password = (settings.data_dir / "flower.password").read_text().strip()
    assert password in said.out
    assert password not in logs.path(settings.data_dir).read_text()

    following = door.start("logs", "stack", "--follow")
    os.kill(next(one for one in everything if one.name() == "cs-monitor").pid, signal.SIGKILL)
    assert following.stdout is not None
    assert "monitor ended by itself (SIGKILL)" in following.stdout.readline()

    assert door.ok("down").out == "stopped\n"
    # Its work has ended; its own process is leaving.
    wait_until(lambda: not any(map(alive, everything)), seconds=10)
    left = ended(following)
    assert (left.code, left.err) == (0, "The stack has ended.\n")
    assert door.ok("down").out == f"No stack runs on {settings.data_dir}.\n"
    assert door.ok("status", "--json").json["here"] is None


def test_a_stack_that_can_not_start_says_why_at_once(door: Door, settings: Settings) -> None:
    settings.data_dir.mkdir()
    with door.start("up", "--detach", "--flower-port", "1") as process:
        said = ended(process, WITHIN)
    if os.getuid() == 0:  # root may have any port: take one
        door("down")
        with running.announced(settings.data_dir), door.start("up", "-d") as process:
            said = ended(process, WITHIN)
        assert "ALREADY_RUNNING" in said.err
    else:
        assert "PORT_TAKEN" in said.err
    assert said.code == 2


def test_logs_without_a_log_say_who_writes_one(door: Door) -> None:
    said = door("logs")
    assert said.code == 2
    assert "error LOG_MISSING" in said.err
    assert door("logs", "postgres").code == 2


def test_a_killed_stack_is_none(tmp_path: Path) -> None:
    program = "import sys, time\nfrom pathlib import Path\nfrom cli.stack.running import announced\n"
    program += "with announced(Path(sys.argv[1])):\n    print('here', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert running.find(tmp_path) == running.Running(process.pid)
        process.kill()
        process.wait()
    assert running.find(tmp_path) is None
    with running.announced(tmp_path):
        found = running.find(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()


def test_a_log_that_has_grown_is_begun_anew_and_followed_on(tmp_path: Path) -> None:
    log = tmp_path / "log" / "up.log"
    with logs.opened(log) as file:
        seen = logs.follow(log, 4_000, lambda: True)
        file.write(b"one\n" * 1000)
        file.flush()
        logs.rotate(log, most=100)
        file.write(b"two\n")
        file.flush()
        assert next(seen) == "two"
    assert len(logs.since(logs.before(log), 0)) == 1000
    assert logs.since(log, 0) == ["two"]


def test_lines_for_people_and_by_process_and_time() -> None:
    line = json.dumps(
        {"event": "run_finished", "run": 7, "process": "worker", "level": "warning", "logger": "x"}
        | {"timestamp": "2026-11-30T01:02:03.5Z"}
    )
    assert logs.readable(line) == "11-30 01:02:03 worker    WARNING run_finished run=7"
    assert logs.readable("no JSON") == "no JSON"
    at = datetime(2026, 11, 30, 1, tzinfo=UTC)
    assert logs.wanted(line, "worker", at)
    assert not logs.wanted(line, "flower", at)
    assert not logs.wanted(line, None, at.replace(hour=2))
    assert logs.wanted("no JSON", None, at)
    assert not logs.wanted("no JSON", "worker", None)
