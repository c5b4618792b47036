"""The stack with real processes: it comes up, mends itself, and leaves nothing, however it ends."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cli.stack import prepared
from cli.stack.stack import Stack, environment_of
from cli.stack.supervise import Program, Supervisor
from cli.stack.valkey import EmbeddedValkey
from config.settings import Settings
from models.errors import ConfigurationError, SyncError
from tests.support import free_port

WITHIN = 15.0
Up = Callable[..., "subprocess.Popen[str]"]


def until(condition: Callable[[], object], seconds: float = WITHIN) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def below(pid: int | None = None) -> list[psutil.Process]:
    """Every living process below one, this one's if none is named."""
    return [p for p in psutil.Process(pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def none_left(processes: list[psutil.Process]) -> Callable[[], bool]:
    return lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def text_of(stream: Path) -> str:
    return stream.read_text() if stream.exists() else ""


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    """A free port for Flower; at the end nothing may be left: no process, thread, socket or lock."""
    before, threads = {p.pid for p in below()}, set(threading.enumerate())
    yield settings.model_copy(update={"flower_port": 0, "monitor_port": 0, "log_format": "json"})
    until(lambda: {p.pid for p in below()} <= before)
    assert set(threading.enumerate()) <= threads
    assert not settings.valkey_socket.exists()
    assert not (settings.data_dir / "stack.lock").exists()


@pytest.fixture
def up(settings: Settings, tmp_path: Path) -> Iterator[Up]:
    """`cohort-sync up` as a person starts it; what it says goes to `up.txt`."""
    started: list[subprocess.Popen[str]] = []

    def start(*, wait: bool = True, **changes: object) -> subprocess.Popen[str]:
        environment = {**os.environ, **environment_of(settings.model_copy(update=changes))}
        with (tmp_path / "up.txt").open("w") as out:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "cli.stack.parent_death", str(os.getpid()), "run", "up"],
                    env=environment,
                    cwd=tmp_path,
                    stdout=out,
                    stderr=out,
                    text=True,
                    start_new_session=True,
                )
            )
        if wait:
            until(lambda: "ready;" in text_of(tmp_path / "up.txt") or started[-1].poll() is not None)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_every_process_answers_and_none_is_left(settings: Settings, tmp_path: Path) -> None:
    with Stack(settings, workers=2, log=tmp_path / "log") as stack:
        assert stack.wait_until_ready()
        assert stack.names == ["scheduler", "worker-1", "worker-2", "flower", "monitor"]
        pids = [stack.pid(name) for name in [*stack.names, "valkey"]]
        assert None not in pids
        started = [p for pid in pids if pid for p in (psutil.Process(pid), *below(pid))]
        assert len(started) == 6 + 2 * settings.worker_concurrency
        for pid in pids[:-1]:
            assert os.getpgid(pid or 0) == pid  # a Ctrl-C in the terminal is the stack's alone
        command_lines = [" ".join(p.cmdline()) for p in started]
        assert not any(stack.password.password in line for line in command_lines)
        assert sum(stack.ends(name) for name in stack.names) == 0
    assert none_left(started)()


def test_what_ends_is_started_again(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Stack(settings, log=tmp_path / "log") as stack:
        assert stack.wait_until_ready()
        for name in ["worker-1", "scheduler", "flower", "monitor", "valkey"]:
            pid = stack.pid(name)
            assert pid
            its_own = below(pid)  # of a worker: its pool
            os.kill(pid, signal.SIGKILL)
            until(lambda name=name, pid=pid: stack.pid(name) not in {None, pid})  # type: ignore[misc]
            assert none_left(its_own)()
            assert f"{name} ended by itself (SIGKILL)" in caplog.text
        assert stack.wait_until_ready(30)  # Flower and the monitor keep their ports


def test_a_person_is_told_where_to_look_and_the_password_once(
    up: Up, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"flower_port": free_port()})
    with socket.create_server(("127.0.0.1", settings.flower_port)):
        assert up(flower_port=settings.flower_port).wait(WITHIN) == 2
        refused = text_of(tmp_path / "up.txt")
    assert "error PORT_TAKEN" in refused
    assert "COHORT_SYNC_FLOWER_PORT" in refused
    process = up(flower_port=settings.flower_port)
    said = refused + text_of(tmp_path / "up.txt")
    password = (settings.data_dir / "flower.password").read_text().strip()
    assert said.count(password) == 1
    port = re.search(r"Flower    http://127\.0\.0\.1:(\d+)", said)
    assert port
    assert int(port[1]) == settings.flower_port
    for shown in (f"sqlite:///{settings.data_dir}/cohort-sync.db", "embedded Valkey", str(settings.data_dir)):
        assert shown in said
    everything = below(process.pid)

    other = subprocess.run(
        [sys.executable, "-P", "-m", "cli.stack.parent_death", str(os.getpid()), "run", "up"],
        env={**os.environ, **environment_of(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 2
    assert (
        f"ALREADY_RUNNING: A stack is already running on this data directory (process {process.pid})"
        in other.stderr
    )

    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 0
    assert none_left(everything)()
    assert "Traceback" not in text_of(tmp_path / "up.txt")

    again = up(wait=False)
    until(lambda: "  data  " in text_of(tmp_path / "up.txt"))
    assert password not in text_of(tmp_path / "up.txt")
    again.send_signal(signal.SIGTERM)
    assert again.wait(WITHIN) == 0


def test_a_killed_stack_takes_everything_with_it(up: Up, settings: Settings) -> None:
    process = up()
    everything = below(process.pid)
    assert len(everything) == 5 + settings.worker_concurrency
    for child in everything:  # busy ones, that look at nothing
        child.suspend()
    process.kill()
    until(none_left(everything), 3)
    with EmbeddedValkey(settings) as server:  # the lock is free, the file is whole
        assert server.ping()


def test_a_stop_in_the_middle_of_the_start_leaves_nothing(up: Up, settings: Settings) -> None:
    process = up(wait=False)
    until((settings.data_dir / "stack.lock").exists)
    until(lambda: below(process.pid))
    everything = below(process.pid)
    process.terminate()
    assert process.wait(WITHIN) == 0
    until(none_left(everything), 1)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stop_is_not_lost_in_a_callback(at_once: bool) -> None:
    """Python drops an exception that a signal raises while the callback of a weak reference runs."""
    program = f"""
import os, signal, sys, weakref
from cli.stack.stack import StopRequested
leave = StopRequested(at_once={at_once})
leave.install()
class Thing: pass
thing = Thing()
kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
del thing
leave.wait()
print("left")
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert (found.returncode, found.stdout) == (0, "left\n")


def test_a_second_ctrl_c_waits_for_nobody(up: Up) -> None:
    process = up()
    everything = below(process.pid)
    for child in everything:
        child.suspend()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)  # Valkey is asked after the others
    assert process.wait(5) == 0
    until(none_left(everything), 1)


@pytest.mark.parametrize(
    ("database_url", "code"),
    [("mysql://there/db", "SETTING_INVALID"), ("postgresql://u:p-w@127.0.0.1:1/db", "DATABASE_UNREACHABLE")],
)
def test_a_database_that_can_not_be_used_is_named_before_anything_is_started(
    settings: Settings, database_url: str, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stack = Stack(settings.model_copy(update={"database_url": database_url}))
    with pytest.raises(SyncError) as failed, stack:
        pass
    assert failed.value.code == code
    assert "p-w" not in str(failed.value)
    assert stack.pid("valkey") is None
    assert capfd.readouterr() == ("", "")


def test_what_can_not_be_passed_on_has_a_name_all_the_same() -> None:
    class Odd(Exception):  # noqa: N818 - of no module: it can't be pickled
        pass

    told = pickle.loads(prepared._told(Odd("a secret")))  # noqa: S301
    assert isinstance(told, SyncError)
    assert (told.code, told.context) == ("INTERNAL", {"kind": "Odd"})
    passed = pickle.loads(prepared._told(OSError(errno.ENOSPC, "full", "/data/x")))  # noqa: S301
    assert isinstance(passed, OSError)
    assert (passed.errno, passed.filename) == (errno.ENOSPC, "/data/x")


def test_a_directory_that_can_not_be_used_is_named(settings: Settings) -> None:
    settings.data_dir.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"COHORT_SYNC_DATA_DIR.*data"), Stack(settings):
        pass
    settings.data_dir.unlink()


def test_a_configured_redis_is_used_and_the_directory_locked_all_the_same(
    settings: Settings, tmp_path: Path
) -> None:
    theirs = Settings(_env_file=None, data_dir=tmp_path / "theirs")
    ours = settings.model_copy(update={"redis_url": theirs.redis})
    with EmbeddedValkey(theirs), Stack(ours, log=tmp_path / "log") as stack:
        assert stack.pid("valkey") is None
        assert not settings.valkey_socket.exists()
        with pytest.raises(ConfigurationError, match="ALREADY_RUNNING"), Stack(ours):
            pass


def test_settings_reach_another_process_whole(settings: Settings, tmp_path: Path) -> None:
    odd = Settings(
        _env_file=None,
        data_dir=tmp_path / "a b",
        secret_key="k1, k2",
        flower_password="p w",
        tick_seconds=0.25,
        log_format="console",
    )
    (tmp_path / ".env").write_text("COHORT_SYNC_TICK_SECONDS=99\nCOHORT_SYNC_REDIS_URL=redis://elsewhere\n")
    program = (
        "import json; from config.settings import Settings; from cli.stack.stack import environment_of;"
        "print(json.dumps(environment_of(Settings())))"
    )
    for given in (odd, settings):
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment_of(given)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(answer.stdout) == environment_of(given)


def test_a_program_that_will_not_end_is_killed_with_what_it_started(
    settings: Settings, tmp_path: Path
) -> None:
    settings.data_dir.mkdir()
    stubborn = tmp_path / "stubborn.sh"
    stubborn.write_text("#!/bin/sh\ntrap '' TERM\nsleep 100 &\necho up > up\nwhile :; do sleep 0.1; done\n")
    stubborn.chmod(0o755)
    before = set(below())  # a session's own servers live on
    with Supervisor() as supervisor:
        supervisor.start(
            Program("stubborn", ["exec", "/bin/sh", "-c", f"cd {tmp_path}; exec {stubborn}"], grace=0.5)
        )
        until((tmp_path / "up").exists)
        started = [process for process in below() if process not in before]
        assert len(started) >= 2
        begun = time.monotonic()
    assert 0.5 < time.monotonic() - begun < 3
    until(none_left(started), 1)


def test_a_program_that_keeps_ending_is_tried_less_and_less_often(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.data_dir.mkdir()
    with Supervisor() as supervisor:
        supervisor.start(Program("broken", ["exec", "/bin/false"], first_delay=0.1, most_delay=0.4))
        until(lambda: supervisor.ends("broken") >= 4)
        assert supervisor.pid("broken") is None
    delays = re.findall(r"broken ended by itself \(exit code 1\); it starts again in ([\d.]+) s", caplog.text)
    assert delays[:4] == ["0.1", "0.2", "0.4", "0.4"]
