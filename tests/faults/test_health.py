"""Probes of a running product: what is stuck or gone is not alive; a server that is away is no reason to restart."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cli import health
from config.pulse import STALE_SECONDS, Pulse, signs
from tests.product import Product, product_beside_its_queue
from tests.support import ROOT, environment, wait_until

ROLES = ("scheduler", "worker")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def probed(request: pytest.FixtureRequest) -> Iterator[Product]:
    with product_beside_its_queue(request, request.param, "probed") as product:
        product.begin()
        yield product


def ill(product: Product, role: str | None, *, ready: bool, later: float = 0.0) -> str | None:
    given = environment(product.db.settings)
    found = health.ill(given, role, ready=ready, now=time.time() + later)
    return None if found is None else found[0]


@pytest.mark.parametrize("role", ROLES)
def test_a_process_that_works_is_alive_and_ready(probed: Product, role: str) -> None:
    wait_until(lambda: ill(probed, role, ready=True) is None, seconds=20)
    assert ill(probed, None, ready=True) is None
    assert ill(probed, "receiver", ready=False) == "PROCESS_SILENT"


@pytest.mark.parametrize("role", ROLES)
def test_a_frozen_process_is_not_alive(probed: Product, role: str) -> None:
    wait_until(lambda: ill(probed, role, ready=False) is None, seconds=20)
    data_dir = probed.db.settings.data_dir
    [mine] = [one for one in signs(data_dir, now=time.time()) if one.role == role]
    os.kill(mine.pid, signal.SIGSTOP)
    try:
        # The others have beaten since: only the frozen one is stale after the rest of the minute.
        ages = wait_until(lambda: _apart(data_dir, role), seconds=40)
        later = STALE_SECONDS - ages + 1
        assert ill(probed, role, ready=False, later=later) == "PROCESS_SILENT"
        other = next(one for one in ROLES if one != role)
        assert ill(probed, other, ready=False, later=later) is None
    finally:
        os.kill(mine.pid, signal.SIGCONT)
    wait_until(lambda: _ages(data_dir)[role] < 6, seconds=20)


def _ages(data_dir: Path) -> dict[str, float]:
    return {one.role: one.age for one in signs(data_dir, now=time.time())}


def _apart(data_dir: Path, role: str) -> float | None:
    """The age of the role's sign once it is ten seconds older than everybody else's."""
    ages = _ages(data_dir)
    mine = ages.pop(role)
    return mine if mine > max(ages.values()) + 10 else None


def test_a_queue_that_is_away_is_no_reason_to_restart(probed: Product) -> None:
    with Redis.from_url(probed.db.settings.redis) as queue:
        queue.config_set("maxmemory", "1")
        try:
            for role in ROLES:
                assert ill(probed, role, ready=True) == "BROKER_UNREACHABLE"
                assert ill(probed, role, ready=False) is None
        finally:
            queue.config_set("maxmemory", "0")
    assert ill(probed, "worker", ready=True) is None


def test_a_frozen_queue_keeps_nobody_from_beating(probed: Product) -> None:
    with Redis.from_url(probed.db.settings.redis) as queue:
        server = int(queue.info("server")["process_id"])
    os.kill(server, signal.SIGSTOP)
    try:
        time.sleep(25)  # longer than any one wait for it
        assert ill(probed, "worker", ready=True) == "BROKER_UNREACHABLE"
        assert all(age < 15 for age in _ages(probed.db.settings.data_dir).values())
    finally:
        os.kill(server, signal.SIGCONT)
    probed.succeeds(probed.bind())


def test_a_process_that_was_killed_leaves_no_sign(tmp_path: Path) -> None:
    """Whatever process has its number now."""
    pulse = Pulse(tmp_path, "worker")
    pulse.beat()
    assert [one.pid for one in signs(tmp_path, now=time.time())] == [os.getpid()]
    left = tmp_path / "run" / next((tmp_path / "run").iterdir()).name.replace("worker", "scheduler")
    left.touch()
    assert [one.role for one in signs(tmp_path, now=time.time())] == ["worker"]
    assert not left.exists()
    pulse.stop()
    assert signs(tmp_path, now=time.time()) == []


def test_a_probe_that_comes_too_early_takes_no_sign_away(tmp_path: Path) -> None:
    """It may meet the file before it is locked: it removes it, or keeps it from being locked."""
    instants = iter(float(10 * number) for number in range(9))
    pulse = Pulse(tmp_path, "worker", lambda: next(instants))
    pulse.beat()
    [file] = (tmp_path / "run").iterdir()
    file.unlink()
    assert signs(tmp_path, now=time.time()) == []
    pulse.beat()
    assert [one.role for one in signs(tmp_path, now=time.time())] == ["worker"]
    file.unlink()
    file.touch()
    with file.open("rb") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        pulse.beat()
    pulse.beat()
    assert [one.role for one in signs(tmp_path, now=time.time())] == ["worker"]


def test_a_probe_loads_no_library(probed: Product) -> None:
    """It is asked every few seconds in each container: 0.07 s of processor time, a quarter of the command line's."""
    code = "import sys, cohort_sync; sys.argv[1:] = ['health']; print(cohort_sync.main(), *sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(probed.db.settings),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert said[:2] == ["ok", "0"]
    assert not {"typer", "pydantic", "sqlalchemy", "celery", "redis", "structlog"} & set(said)


def test_what_is_stuck_is_ended_if_that_is_asked(tmp_path: Path) -> None:
    """Docker Compose does nothing about a probe that fails: it starts again what has ended."""
    beats = (
        "import pathlib, sys, time; from config.pulse import Pulse;"
        "Pulse(pathlib.Path(sys.argv[1]), sys.argv[2]).beat(); print('beats', flush=True); time.sleep(100)"
    )
    given = {**os.environ, "COHORT_SYNC_DATA_DIR": str(tmp_path)}
    stuck, well = (
        subprocess.Popen(
            [sys.executable, "-c", beats, str(tmp_path), role], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for role in ROLES
    )
    try:
        for process in (stuck, well):  # a look at a file that is not locked yet would take it away
            assert process.stdout is not None
            assert process.stdout.readline() == "beats\n"
        assert len(signs(tmp_path, now=time.time())) == 2
        [file] = (tmp_path / "run").glob("scheduler@*")
        os.utime(file, (0, 0))
        probe = [sys.executable, "-c", "import sys, cohort_sync; sys.exit(cohort_sync.main())", "health"]
        codes = [
            subprocess.run([*probe, *words.split()], env=given, cwd=ROOT, check=False).returncode
            for words in ("worker --live --kill", "scheduler --live", "scheduler --ready --kill")
        ]
        assert codes == [0, 1, 2]
        assert stuck.poll() is None, "nobody asked for it"
        assert (
            subprocess.run(
                [*probe, "scheduler", "--live", "--kill"], env=given, cwd=ROOT, check=False
            ).returncode
            == 1
        )
        assert stuck.wait(10) == -signal.SIGKILL
        assert well.poll() is None
    finally:
        for process in (stuck, well):
            process.kill()
            process.communicate()
