"""The embedded Valkey with real processes: one server on a directory, gone with its parent, nothing left."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from cli.stack.valkey import EmbeddedValkey
from config.settings import Settings
from config.sockets import ours_or_absent
from models.errors import TransientError

Hold = Callable[[], "subprocess.Popen[str]"]

HOLD = """
import sys
from pathlib import Path
from config.settings import Settings
from cli.stack.valkey import EmbeddedValkey
from models.errors import ConfigurationError
try:
    with EmbeddedValkey(Settings(data_dir=Path(sys.argv[1]))) as server:
        print("up", server.pid, flush=True)
        sys.stdin.read()
except ConfigurationError as error:
    print(error.code, error.context["pid"], flush=True)
"""


def servers(directory: Path) -> list[psutil.Process]:
    """Every process that names the directory on its command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(directory) in word for word in process.info["cmdline"] or [])
    ]


def until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    data_dir = settings.data_dir
    threads = set(threading.enumerate())
    yield settings
    until(lambda: not servers(data_dir))
    assert set(threading.enumerate()) <= threads
    assert not (data_dir / "valkey.sock").exists()
    assert not (data_dir / "stack.lock").exists()


@pytest.fixture
def hold(settings: Settings) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Other processes with the server up, until their input is closed."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        line = [sys.executable, "-c", HOLD, str(settings.data_dir)]
        started.append(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.communicate(timeout=20)


def first_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout
    return process.stdout.readline().split()


def test_it_is_durable_and_reachable_by_its_owner_only(settings: Settings) -> None:
    with EmbeddedValkey(settings) as server, Redis.from_url(settings.redis, decode_responses=True) as client:
        config = client.config_get("*")
        assert {k: config[k] for k in ("appendonly", "appendfsync", "maxmemory-policy", "port", "save")} == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "port": "0",
            "save": "",
        }
        assert client.info("server")["process_id"] == server.pid
        assert stat.S_IMODE(settings.valkey_socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
        listening = psutil.Process(server.pid).net_connections()
        assert [c for c in listening if c.status == psutil.CONN_LISTEN] == []
        assert (settings.data_dir / "stack.lock").read_text().strip() == str(os.getpid())


def test_what_was_queued_outlives_the_server_and_the_stack(settings: Settings) -> None:
    with EmbeddedValkey(settings) as server:
        with Redis.from_url(settings.redis) as client:
            client.rpush("queue", "a")
        killed = server.pid
        assert killed
        os.kill(killed, signal.SIGKILL)
        until(lambda: server.pid not in {None, killed} and server.ping())
        with Redis.from_url(settings.redis) as client:
            client.rpush("queue", "b")
            assert client.lrange("queue", 0, -1) == [b"a", b"b"]
        assert len(servers(settings.data_dir)) == 1
    with EmbeddedValkey(settings), Redis.from_url(settings.redis) as client:
        assert client.lrange("queue", 0, -1) == [b"a", b"b"]


def test_a_second_stack_is_refused_and_told_who_is_there(settings: Settings, hold: Hold) -> None:
    with EmbeddedValkey(settings) as server:
        other = hold()
        assert other.communicate(timeout=20)[0].split() == ["ALREADY_RUNNING", str(os.getpid())]
        assert server.ping()
        assert len(servers(settings.data_dir)) == 1


def test_of_many_that_start_at_once_one_wins(hold: Hold) -> None:
    crowd = [hold() for _ in range(5)]
    said = [first_line(process) for process in crowd]
    winners = [process for process, line in zip(crowd, said, strict=True) if line[0] == "up"]
    assert len(winners) == 1
    assert {tuple(line) for line in said if line[0] != "up"} == {("ALREADY_RUNNING", str(winners[0].pid))}
    for process in crowd:
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_it_dies_with_a_killed_parent_and_the_next_stack_starts_at_once(
    settings: Settings, hold: Hold
) -> None:
    parent = hold()
    assert first_line(parent)[0] == "up"
    with Redis.from_url(settings.redis) as client:
        client.set("kept", "yes")
    parent.kill()
    with EmbeddedValkey(settings), Redis.from_url(settings.redis) as client:
        assert client.get("kept") == b"yes"
        assert len(servers(settings.data_dir)) == 1
    parent.communicate()


def test_the_lock_is_held_as_long_as_the_server_lives(settings: Settings, hold: Hold) -> None:
    parent = hold()
    server = psutil.Process(int(first_line(parent)[1]))
    lock = settings.data_dir / "stack.lock"
    assert lock in [Path(descriptor).readlink() for descriptor in Path(f"/proc/{server.pid}/fd").iterdir()]
    parent.kill()
    parent.communicate()
    server.wait(5)
    lock.unlink()
    settings.valkey_socket.unlink()  # a killed stack leaves both; the next one takes them over


def test_a_stale_socket_is_replaced(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(settings.valkey_socket))
    assert settings.valkey_socket.exists()
    with EmbeddedValkey(settings) as server:
        assert server.ping()


def test_a_long_path_gets_a_short_socket(settings: Settings) -> None:
    far = Settings(data_dir=settings.data_dir / ("x" * 80) / ("y" * 80))
    with EmbeddedValkey(far) as server:
        assert far.valkey_socket.parent != far.data_dir
        assert server.ping()
    assert not far.valkey_socket.exists()


def test_a_socket_is_never_looked_for_in_a_directory_of_somebody_else(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can guess the name could have a server of their own listen there."""
    far = Settings(data_dir=settings.data_dir / ("x" * 80) / ("y" * 80))
    room = far.valkey_socket.parent
    assert room.name == f"cohort-sync-{os.geteuid()}"
    with EmbeddedValkey(far):
        assert stat.S_IMODE(room.stat().st_mode) == 0o700
    for mode in (0o755, 0o770, 0o777):
        room.chmod(mode)
        assert far.valkey_socket.parent != room
    room.chmod(0o700)
    assert far.valkey_socket.parent == room
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    assert not ours_or_absent(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.undo()
    assert not ours_or_absent(tmp_path / "link")


@pytest.mark.parametrize(
    ("before", "after"), [(0o755, 0o700), (0o777, 0o700), (0o700, 0o700), (0o1777, 0o1777)]
)
def test_a_data_directory_is_closed_to_others(tmp_path: Path, before: int, after: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(before)
    with EmbeddedValkey(Settings(data_dir=directory)):
        assert stat.S_IMODE(directory.stat().st_mode) == after
        assert stat.S_IMODE((directory / "valkey").stat().st_mode) == 0o700


def test_a_broken_file_is_set_aside(settings: Settings) -> None:
    with EmbeddedValkey(settings), Redis.from_url(settings.redis) as client:
        client.set("a", "1")
    [file] = (settings.data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"*3\r\n$3\r\nnot a command\r\n" * 20)
    with EmbeddedValkey(settings), Redis.from_url(settings.redis) as client:
        assert client.dbsize() == 0
        client.set("a", "2")
    [aside] = (settings.data_dir / "valkey").glob("appendonlydir.broken-*")
    assert (aside / file.name).exists()


def test_a_file_cut_short_by_a_kill_is_read(settings: Settings) -> None:
    with EmbeddedValkey(settings), Redis.from_url(settings.redis) as client:
        client.set("a", "1")
        client.set("b", "2")
    [file] = (settings.data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(file.read_bytes()[:-3])
    with EmbeddedValkey(settings), Redis.from_url(settings.redis) as client:
        assert client.keys() == [b"a"]


def test_a_server_that_cannot_start_says_why(settings: Settings) -> None:
    settings.valkey_socket.mkdir(parents=True)
    with pytest.raises(TransientError, match=r"BROKER_UNREACHABLE.*Is a directory"), EmbeddedValkey(settings):
        pass
    settings.valkey_socket.rmdir()
