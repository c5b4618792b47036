"""A PostgreSQL server that follows another one, for failovers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.support import postgres_in, wait_until

OWNER = "embedded_postgres"  # the account that the PostgreSQL of the tests has, where they run as root


def folder_of(url: str) -> Path:
    """The directory of the server's socket."""
    return Path(url.partition("host=")[2].partition("&")[0])


def unprivileged() -> dict[str, Any]:
    """These servers refuse to run as root."""
    return {"user": OWNER} if os.geteuid() == 0 else {}


@contextmanager
def standby_of(primary: str) -> Iterator[str]:
    """The URL of a server that follows this one, and keeps nothing when it ends."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    for tries in range(3):  # a file of the server's may go while it is copied
        data = Path(tempfile.mkdtemp(prefix="cs-pg-"))
        if os.geteuid() == 0:
            # The test's umask may hide the second.
            for theirs in (data, folder_of(primary) / ".handle_pids.json"):
                shutil.chown(theirs, OWNER)
        copy = [POSTGRES_BIN_PATH / "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast"]
        copy += ["-h", folder_of(primary), "-U", "postgres"]
        done = subprocess.run(copy, check=False, capture_output=True, timeout=60, **unprivileged())
        if done.returncode == 0:
            break
        shutil.rmtree(data)
        assert tries < 2, done.stderr.decode()
    for left in ("postmaster.pid", ".s.PGSQL.5432.lock", ".handle_pids.json", "log"):
        (data / left).unlink(missing_ok=True)
    with postgres_in(data) as standby:
        yield standby


def has_followed(primary: str) -> None:
    """Wait until a standby has everything that was committed."""
    followed = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
    wait_until(lambda: rows(primary, followed), seconds=30)


def promote(standby: str) -> None:
    """It takes writes from now on."""
    execute(standby, "SELECT pg_promote()")
    wait_until(lambda: rows(standby, "SELECT 1 WHERE NOT pg_is_in_recovery()"), seconds=30)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def kill_server(url: str) -> None:
    """SIGKILL to it and all of its sessions; nothing of it waits for somebody to reap it."""
    known = folder_of(url) / "postmaster.pid"
    server = psutil.Process(int(known.read_text().split("\n")[0]))
    for process in [server, *server.children(recursive=True)]:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    known.unlink()  # else `pg_ctl stop` waits for it where nobody reaps what is killed
