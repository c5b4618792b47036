"""Flower as it runs in production: the real command, the real broker settings, its API over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from cli.flower import credentials
from cli.stack import ports
from cli.stack.stack import environment_of
from config.queue import make_app
from config.queue_names import QUEUE, QUEUES
from config.settings import Settings
from models import schema
from models.database import Database
from models.errors import ConfigurationError
from tests.support import ROOT, Valkey

IN_PRODUCTION = ROOT / "deploy" / "flowerconfig.py"

COMMAND = [sys.executable, "-P", "-m", "cli.stack.parent_death", str(os.getpid()), "run", "flower"]
Page = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def served(broker: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, str, Path]]:
    """A Flower on a socket broker, with a password of its own making: settings, URL, what it printed."""
    directory = tmp_path_factory.mktemp("flower")
    settings = Settings(
        _env_file=None, data_dir=directory / "data", redis_url=broker.url, flower_port=0, log_format="json"
    )
    database = Database(settings)
    schema.upgrade(database)
    database.dispose()
    with serving(settings, directory / "said") as url:
        yield settings, url, directory / "said"


@contextmanager
def serving(
    settings: Settings,
    said: Path,
    *,
    crashes: bool = False,
    started: Callable[[int], object] = lambda _process: None,
    **extra: str,
) -> Iterator[str]:
    with said.open("w") as out:
        process = subprocess.Popen(
            COMMAND, env={**os.environ, **environment_of(settings), **extra}, stdout=out, stderr=out
        )
    started(process.pid)
    try:
        deadline = time.monotonic() + 60  # other work may have the processor
        while "Flower is at " not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = said.read_text().split("Flower is at ")[1].split(",")[0]
        while True:
            try:
                requests.get(f"{url}/healthcheck", timeout=5)
            except (requests.ConnectionError, requests.Timeout):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                break
        assert psutil.Process(process.pid).children() == []
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0  # with a queue that is away it takes six seconds on a quiet machine
        assert crashes or "Traceback" not in said.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(served: tuple[Settings, str, Path]) -> Page:
    settings, url, _ = served
    known = credentials.credentials(settings)

    def ask(method: str, path: str, **more: Any) -> requests.Response:
        more.setdefault("auth", (known.user, known.password))
        return requests.request(method, url + path, timeout=10, **more)

    return ask


def test_nobody_gets_in_without_the_password(page: Page) -> None:
    for path in ("/", "/tasks", "/broker", "/api/workers", "/api/tasks"):
        assert page("GET", path, auth=None).status_code == 401
        assert page("GET", path, auth=("cohort-sync", "wrong")).status_code == 401
    dispatch = "/api/task/async-apply/sync.trigger"
    assert page("POST", dispatch, auth=None, json={"args": ["x"]}).status_code == 401
    assert page("GET", "/", auth=("cohort-sync", "wröng")).status_code == 401
    assert page("GET", "/tasks").status_code == 200
    # These two are open by Flower's design.
    assert page("GET", "/healthcheck", auth=None).text == "OK"
    assert page("GET", "/metrics", auth=None).status_code == 200


def test_the_password_is_made_once_and_shown_nowhere_else(served: tuple[Settings, str, Path]) -> None:
    settings, _, said = served
    kept = settings.data_dir / credentials.PASSWORD_FILE
    password = kept.read_text().strip()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert said.read_text().count(password) == 1
    for process in psutil.process_iter(["cmdline"]):
        assert password not in " ".join(process.info["cmdline"] or [])
    assert credentials.credentials(settings) == credentials.Credentials("cohort-sync", password, made=False)


def test_a_run_can_be_dispatched_and_is_seen_in_the_queue(page: Page, broker: Valkey) -> None:
    answer = page("POST", "/api/task/async-apply/sync.trigger", json={"args": ["a binding"]})
    assert answer.status_code == 200, answer.text
    queues = page("GET", "/api/queues/length").json()["active_queues"]
    assert {one["name"]: one["messages"] for one in queues} == dict.fromkeys(QUEUES, 0) | {QUEUE: 1}
    app = make_app(Settings(_env_file=None, redis_url=broker.url))
    with app.connection_for_read() as connection, connection.SimpleQueue(QUEUE) as queue:
        message = queue.get(timeout=5)
        message.ack()
    assert message.headers["task"] == "sync.trigger"
    assert message.headers["id"] == answer.json()["task-id"]
    assert message.payload[0] == ["a binding"]
    assert page("GET", "/api/queues/length").json()["active_queues"][0]["messages"] == 0
    assert page("GET", "/broker").status_code == 200
    assert page("POST", "/api/task/async-apply/no.such.task", json={"args": []}).status_code == 404


@pytest.mark.parametrize("door", ["apply", "async-apply", "send-task"])
def test_a_body_that_celery_could_not_send_is_refused_in_words(page: Page, door: str) -> None:
    path = f"/api/task/{door}/sync.trigger"
    odd: list[Any] = [
        [],
        7,
        {"args": {"binding": "x"}},
        {"args": "buyers"},
        {"args": ["x"], "kwargs": ["queue"]},
        {"args": ["x"], "kwargs": None},
        {"args": ["x"], "eta": 5},
        {"args": ["x"], "expires": None},
        {"args": ["x"], "expires": [1]},
        {"args": ["x"], "countdown": "soon"},
        {"args": ["x"], "countdown": True},
        {"args": ["x"], "timeout": "1"},
        {"args": ["x"], "queue": "elsewhere"},
        {"args": ["x"], "queue": ["sync"]},
        {"args": ["x"], "task_id": {"a": 1}},
        {"args": ["x"], "connection": "redis://elsewhere"},
        {"args": ["x"], "link": "sync.push"},
        {"binding": "x"},
    ]
    for body in odd:
        answer = page("POST", path, json=body)
        assert answer.status_code == 400, (body, answer.text)
        assert "Traceback" not in answer.text
    assert page("POST", path, data="{").status_code == 400
    assert page("POST", f"/api/task/{door}/no.such.task", json={"args": []}).status_code == 404
    assert page("POST", f"/api/task/{door}/no.such.task", json={}, auth=None).status_code == 401
    queues = page("GET", "/api/queues/length").json()["active_queues"]
    assert {one["messages"] for one in queues} == {0}, "nothing was sent"


def test_another_sites_page_can_not_dispatch(page: Page) -> None:
    answer = page(
        "POST",
        "/api/task/async-apply/sync.trigger",
        json={"args": ["x"]},
        headers={"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"},
    )
    assert answer.status_code == 403


def test_workers_and_tasks_are_seen(page: Page, served: tuple[Settings, str, Path]) -> None:
    settings = served[0]
    environment = {**os.environ, **environment_of(settings)}
    with (settings.data_dir / "worker.txt").open("w") as log:
        worker = subprocess.Popen(
            [*COMMAND[:-1], "worker", "--name", "seen", "--concurrency", "1"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline, found = time.monotonic() + 30, {}
        while not found:
            assert time.monotonic() < deadline
            found = page("GET", "/api/workers?refresh=1").json()
        [name] = found
        assert name.startswith("seen@")
        assert {"sync.snapshot", "sync.diff", "sync.push", "sync.finish", "sync.trigger"} <= set(
            found[name]["registered"]
        )
        task = page("POST", "/api/task/async-apply/sync.trigger", json={"args": ["nobody"]}).json()["task-id"]
        info: dict[str, Any] = {}
        while info.get("state") != "FAILURE":
            assert time.monotonic() < deadline
            info = (page("GET", "/api/tasks").json() or {}).get(task, {})
            time.sleep(0.05)
        assert info["name"] == "sync.trigger"
        assert info["args"] == "['nobody']"
        assert info["exception"].startswith("NOT_FOUND: There is no binding named 'nobody'.")
        assert info["traceback"] == info["exception"]
        assert "flower_events_total" in page("GET", "/metrics", auth=None).text
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()


def test_a_configured_password_and_a_file_of_options_are_used(
    settings: Settings, broker: Valkey, tmp_path: Path
) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("port = 1\nbasic_auth = ['a:b']\nread_only = True\nmax_tasks = 7\n")
    configured = settings.model_copy(update={"redis_url": broker.url, "flower_port": 0})
    with serving(
        configured, tmp_path / "said", COHORT_SYNC_FLOWER_PASSWORD="from-the-settings", FLOWER_CONF=str(conf)
    ) as url:
        dispatch = f"{url}/api/task/async-apply/sync.trigger"
        for auth, expected in ((("a", "b"), 401), (("cohort-sync", "from-the-settings"), 403)):
            assert requests.post(dispatch, json={"args": ["x"]}, auth=auth, timeout=5).status_code == expected
    assert "from-the-settings" not in (tmp_path / "said").read_text()
    assert not (settings.data_dir / credentials.PASSWORD_FILE).exists()


def test_the_file_that_production_has_is_taken(settings: Settings, broker: Valkey, tmp_path: Path) -> None:
    configured = settings.model_copy(update={"redis_url": broker.url, "flower_port": 0})
    with serving(configured, tmp_path / "said", FLOWER_CONF=str(IN_PRODUCTION)) as url:
        assert requests.get(f"{url}/healthcheck", timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (
            "task_runtime_metric_buckets = [1, 2]",
            "'task_runtime_metric_buckets' is required to be a list of float",
        ),
        ("max_tasks = 1 / 0", "ZeroDivisionError"),
        ("max_tasks = (", "SyntaxError"),
    ],
)
def test_a_file_that_flower_does_not_take_is_named(
    settings: Settings, broker: Valkey, tmp_path: Path, option: str, says: str
) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text(f"{option}\n")
    refused = settings.model_copy(update={"redis_url": broker.url, "flower_port": 0})
    environment = {**os.environ, **environment_of(refused), "FLOWER_CONF": str(conf)}
    answer = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "SETTING_INVALID" in answer.stderr
    assert str(conf) in answer.stderr
    assert says in answer.stderr


def test_a_taken_port_is_named(settings: Settings, broker: Valkey) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = settings.model_copy(update={"redis_url": broker.url, "flower_port": taken.getsockname()[1]})
        answer = subprocess.run(
            COMMAND, env={**os.environ, **environment_of(busy)}, capture_output=True, text=True, check=False
        )
    assert answer.returncode == 2
    assert "COHORT_SYNC_FLOWER_PORT" in answer.stderr
    assert "choose another port" in answer.stderr


def test_a_password_that_flower_could_not_compare_is_refused(settings: Settings) -> None:
    odd = Settings(_env_file=None, data_dir=settings.data_dir, flower_password="größe")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="SETTING_INVALID"):
        credentials.credentials(odd)


def test_a_browser_is_given_an_address_it_can_open(settings: Settings) -> None:
    for address, shown in (("", "http://127.0.0.1:"), ("127.0.0.1", "http://127.0.0.1:")):
        open_to = settings.model_copy(update={"flower_address": address, "flower_port": 0})
        with ports.FLOWER.open(open_to) as listening:
            assert ports.url_of(listening).startswith(shown)
