"""systemd's watchdog is fed by whatever goes round, also without a queue; what is frozen does not feed it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.pulse import BEAT_SECONDS, ROLES, Pulse
from config.settings import Settings
from models.database import Database
from tests.support import ROOT, Valkey, environment, wait_until

pytestmark = pytest.mark.timeout(240)
MAIN = "import sys, cohort_sync; sys.exit(cohort_sync.main())"


class Manager:
    """The socket of a service manager, and what it was told."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(place.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        found = []
        try:
            while True:
                found.append(self._socket.recv(1000).decode())
        except BlockingIOError:
            return found

    def close(self) -> None:
        self._socket.close()


@contextmanager
def service(role: str, settings: Settings, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Manager]]:
    manager = Manager(f"@cohort-sync-{os.getpid()}-{role}")
    words = [role, "--port", "0"] if role == "receiver" else [role]
    with (folder / f"{role}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", MAIN, *words],
            cwd=ROOT,
            env={**environment(settings), "NOTIFY_SOCKET": manager.place},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process, manager
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        manager.close()


@pytest.mark.parametrize("role", ROLES)
def test_it_is_fed_while_the_queue_is_away_and_not_by_what_is_frozen(
    role: str, sqlite_db: Database, valkey: Valkey, tmp_path: Path
) -> None:
    settings = sqlite_db.settings.model_copy(
        update={"redis_url": valkey.url, "flower_port": 0, "monitor_port": 0, "worker_concurrency": 1}
    )
    with service(role, settings, tmp_path) as (process, manager):
        wait_until(lambda: "READY=1\nWATCHDOG=1" in manager.told(), seconds=60)
        valkey.kill()
        for _ in range(3):
            wait_until(manager.told, seconds=8 * BEAT_SECONDS, pause=0.2)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGSTOP)
        manager.told()
        time.sleep(3 * BEAT_SECONDS)
        assert manager.told() == []


def test_without_a_manager_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("", "nowhere", str(tmp_path / "gone")):
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        Pulse(tmp_path, "worker").beat()


def test_a_socket_with_a_path_is_told_of_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.place)
    pulse = Pulse(tmp_path, "worker")
    pulse.beat()
    pulse.stop()
    assert manager.told() == ["READY=1\nWATCHDOG=1", "STOPPING=1"]
    manager.close()
