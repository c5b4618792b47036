"""The monitor's process as an operator starts and stops it: whatever else is dead, it answers and says so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import requests

from cli.main import main
from config.graceful_stop import GracefulStop
from config.queue_names import KEY_PREFIX
from config.settings import Settings
from models.database import Database
from models.naming import find
from models.runs import lifecycle
from models.setup.bindings import Timing
from models.tables import CohortBinding, SyncRun
from models.types import Trigger
from monitor import main as monitoring
from monitor.server import Server
from tests.factories import make_binding, make_destination, make_source
from tests.forked import Forked
from tests.scrape import ROOT, running_monitor
from tests.support import Valkey, environment, wait_until

HEARTBEAT = f"{KEY_PREFIX}scheduler:*"


@pytest.fixture
def scheduled(db: Database) -> CohortBinding:
    """A binding whose next occurrence is far."""
    make_source(db)
    make_destination(db)
    later = datetime.now(UTC) + timedelta(days=1)
    return make_binding(db, "one", timing=Timing("0 6 * * *", "UTC", later, later))


def queued(db: Database, name: str, ago: timedelta) -> int:
    with db.write() as session:
        now = datetime.now(UTC) - ago
        binding = find(session, CohortBinding, name)
        run = lifecycle.dispatch(
            session, binding, trigger=Trigger.MANUAL, scheduled_for=now, now=now, actor="test"
        )
    return run.id


@pytest.mark.usefixtures("scheduled")
def test_it_says_who_is_dead(db: Database, stack: Settings, valkey: Valkey, tmp_path: Path) -> None:
    scheduler = Forked(main, ["scheduler"], cwd=ROOT, env=environment(stack))
    try:
        with running_monitor(stack, tmp_path) as monitor:
            wait_until(lambda: valkey.client.keys(HEARTBEAT), seconds=20)
            wait_until(lambda: monitor.health() == (200, None), seconds=5)
            page = monitor.page()
            assert (page.problems, page("schedulers"), page("bindings_scheduled")) == (set(), 1, 1)

            scheduler.kill()
            scheduler.wait()
            for key in valkey.client.keys(HEARTBEAT):
                valkey.client.pexpire(key, 1)  # its half minute is over
            assert wait_until(lambda: monitor.page().problems, seconds=5) == {"SCHEDULER_SILENT"}
            run = queued(db, "one", timedelta(minutes=4))  # and no worker there is
            assert monitor.page().problems == {"SCHEDULER_SILENT", "WORKERS_SILENT"}
            with db.write() as session:
                session.get_one(SyncRun, run).created_at = datetime.now(UTC)

            valkey.kill()
            page = monitor.page()
            assert page.problems == {"BROKER_UNREACHABLE"}
            assert (page("bindings"), page("runs_unclaimed")) == (1, 0)
            assert monitor.health() == (200, None)
    finally:
        scheduler.kill()
        scheduler.wait()


@pytest.mark.usefixtures("scheduled", "valkey")
@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_database_that_is_away_is_waited_for(
    db: Database, postgres_url: str, stack: Settings, tmp_path: Path
) -> None:
    name = db.engine.url.database
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        with running_monitor(stack, tmp_path) as monitor:  # it starts all the same
            page = monitor.page()
            assert (page.problems, page("schedulers")) == ({"DATABASE_UNREACHABLE"}, 0)
            assert monitor.health() == (503, "DATABASE_UNREACHABLE")
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            wait_until(lambda: monitor.health() == (200, None), seconds=10)
            assert monitor.page()("bindings") == 1

            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            assert monitor.page().problems == {"DATABASE_UNREACHABLE"}
            wait_until(lambda: monitor.health() == (503, "DATABASE_UNREACHABLE"), seconds=5)
            began = time.monotonic()
            assert monitor.stop() == 0
            assert time.monotonic() - began < 8
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_it_serves_two_pages_and_no_more(stack: Settings, tmp_path: Path) -> None:
    with running_monitor(stack, tmp_path) as monitor:
        for path in ("/", "/metrics/", "/admin"):
            assert requests.get(monitor.url + path, timeout=5).status_code == 404
        assert requests.post(f"{monitor.url}/metrics", timeout=5).status_code == 405
        formats = {"Accept": "application/openmetrics-text;version=1.0.0"}
        answer = requests.get(f"{monitor.url}/metrics?x=1", headers=formats, timeout=5)
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
        host, port = monitor.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as rude:
            rude.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and leaves
        with socket.create_connection((host, int(port))):  # one that says nothing keeps nobody
            assert monitor.page()("bindings") == 0
        with ThreadPoolExecutor(8) as crowd:
            answers = list(crowd.map(lambda _: monitor.page(), range(8)))
        assert [page.problems for page in answers] == [set()] * 8
        assert monitor.stop(signal.SIGINT) == 0
        lines = [json.loads(line) for line in monitor.log.read_text().splitlines() if line.startswith("{")]
        assert lines[-1]["event"] == "monitor_stopped"


def test_a_taken_port_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "cli.stack.parent_death", str(os.getpid()), "run", "monitor"],
            env=environment(settings) | {"COHORT_SYNC_MONITOR_PORT": str(taken.getsockname()[1])},
            capture_output=True,
            text=True,
            check=False,
        )
    assert answer.returncode == 2
    assert "error PORT_TAKEN" in answer.stderr
    assert "COHORT_SYNC_MONITOR_PORT" in answer.stderr


def test_a_loop_that_is_stuck_is_not_alive(sqlite_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are a thread's own and would answer for ever."""
    monkeypatch.setattr(monitoring, "STUCK_SECONDS", 0.3)
    entered, let_go, stop = threading.Event(), threading.Event(), GracefulStop()
    watching = monitoring.Monitor(sqlite_db.settings)

    def look() -> None:
        entered.set()
        let_go.wait(60)

    monkeypatch.setattr(watching, "look", look)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(listening, watching.registry, watching.ill, watching.live)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/livez"
        thread = threading.Thread(target=lambda: watching.run(stop))
        server.start()
        thread.start()
        assert entered.wait(20)
        try:
            wait_until(lambda: requests.get(url, timeout=5).status_code == 503, seconds=20)
            monkeypatch.setattr(monitoring, "STUCK_SECONDS", 60.0)
            assert requests.get(url, timeout=5).json() == {"status": "ok"}
        finally:
            stop.ask()
            let_go.set()
            server.stop()
            thread.join()
            watching.close()
