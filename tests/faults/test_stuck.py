"""A stack starts again what is alive and stuck, and never because a server is away."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from redis import Redis

from cli.stack.stack import Stack
from config import pulse
from config.settings import Settings
from tests.product import valkey_over_tcp
from tests.standby import kill_server
from tests.support import postgres_server, wait_until

pytestmark = pytest.mark.timeout(240)
BOUND = 3 * pulse.BEAT_SECONDS  # for a minute


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Settings:
    """The settings of a stack that waits a quarter of a minute for a sign, where it waits for one."""
    monkeypatch.setattr(pulse, "STALE_SECONDS", BOUND)
    return settings.model_copy(update={"flower_port": 0, "monitor_port": 0, "worker_concurrency": 1})


def test_each_process_that_is_frozen_is_started_again(
    impatient: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Stack(impatient, log=tmp_path / "log") as stack:
        assert stack.wait_until_ready()
        frozen = {name: stack.pid(name) or 0 for name in [*stack.names, "valkey"]}
        assert len(frozen) == 5
        left = [p for pid in frozen.values() for p in psutil.Process(pid).children(recursive=True)]
        for pid in frozen.values():
            os.killpg(pid, signal.SIGSTOP)
        wait_until(
            lambda: all(stack.pid(name) not in {None, pid} for name, pid in frozen.items()), seconds=90
        )
        for name in frozen:
            assert f"{name} was killed (PROCESS_SILENT: no sign of life); it starts again" in caplog.text
        wait_until(lambda: not any(map(_lives, left)), seconds=10)
        assert stack.wait_until_ready()


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_servers_that_are_away_are_no_reason(impatient: Settings, tmp_path: Path) -> None:
    """A queue that says nothing, and a database that is gone; for one that says nothing: `test_patience.py`."""
    with postgres_server() as url, valkey_over_tcp() as queue:
        given = {"database_url": url, "redis_url": queue}
        with Stack(impatient.model_copy(update=given), log=tmp_path / "log") as stack:
            assert stack.wait_until_ready()
            with Redis.from_url(queue) as client:
                server = int(client.info("server")["process_id"])
            pids = {name: stack.pid(name) for name in stack.names}
            os.kill(server, signal.SIGSTOP)
            kill_server(url)
            try:
                time.sleep(2 * BOUND)
                assert {name: stack.pid(name) for name in stack.names} == pids
            finally:
                os.kill(server, signal.SIGCONT)
            assert {name: stack.ends(name) for name in stack.names} == dict.fromkeys(stack.names, 0)
