"""`cohort-sync health`: is a process of this machine alive, and can it work? For probes, so it has to cost little.

It is asked every few seconds in each container. So nothing is imported here but the standard library (the command
line alone takes twice the time of a probe), and servers are asked over a bare socket. `cohort_sync.py` comes here
first; `cli/main.py` knows the command for its help.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from config.pulse import ROLES, STALE_SECONDS, signs
from config.sockets import embedded_socket

SECONDS = 2.0
SILENT = "PROCESS_SILENT"
USAGE = f"cohort-sync health [{'|'.join(ROLES)}] [--live [--kill]|--ready] [--json]"
_SSL_REQUEST = (
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL's SSLRequest: answered by one byte before any login
)


def main(arguments: list[str]) -> int:
    """0 if it is well, 1 if not, 2 for a mistake of the caller's; one line says why."""
    names = [word for word in arguments if not word.startswith("-")]
    flags = {word for word in arguments if word.startswith("-")}
    known = flags <= {"--live", "--ready", "--kill", "--json"} and not (
        "--kill" in flags and "--live" not in flags
    )
    if len(names) > 1 or not set(names) <= set(ROLES) or not known:
        print(f"error USAGE: {USAGE}", file=sys.stderr)
        return 2
    role, now = names[0] if names else None, time.time()
    found = ill(os.environ, role, ready="--live" not in flags, now=now)
    if found is not None and "--kill" in flags:
        kill_stuck(os.environ, role, now=now)
    if "--json" in flags:
        error = None if found is None else {"code": found[0], "message": found[1]}
        print(json.dumps({"ok": found is None, "error": error}, indent=2))
    elif found is None:
        print("ok")
    else:
        print(f"error {found[0]}: {found[1]}", file=sys.stderr)
    return 0 if found is None else 1


def ill(
    environment: Mapping[str, str], role: str | None, *, ready: bool, now: float
) -> tuple[str, str] | None:
    """The code of what is wrong and a sentence; none if all is well. `ready`: the servers have to answer as well."""
    given = _settings(environment)
    data_dir = _data_dir(given)
    living = [one for one in signs(data_dir, now=now) if role in {None, one.role}]
    if not living:
        where = data_dir / "run"
        return SILENT, f"No {role or 'process'} of this machine gives a sign of life in {where}."
    for one in living:
        if one.age > STALE_SECONDS:
            return (
                SILENT,
                f"The {one.role} (process {one.pid}) gave its last sign of life {one.age:.0f} s ago.",
            )
    if not ready:
        return None
    if not _database_answers(given.get("DATABASE_URL") or f"sqlite:///{data_dir / 'cohort-sync.db'}"):
        return "DATABASE_UNREACHABLE", "The database does not answer."
    if not _queue_answers(given.get("REDIS_URL", ""), data_dir):
        return (
            "BROKER_UNREACHABLE",
            "The queue can't be used: its server does not answer, or takes no messages.",
        )
    return None


def kill_stuck(environment: Mapping[str, str], role: str | None, *, now: float) -> None:
    """End the processes that are stuck, for a supervisor that starts what has ended but does nothing about a probe."""
    for one in signs(_data_dir(_settings(environment)), now=now):
        if role in {None, one.role} and one.age > STALE_SECONDS:
            with suppress(OSError):
                os.kill(one.pid, signal.SIGKILL)


def _data_dir(given: Mapping[str, str]) -> Path:
    return Path(given.get("DATA_DIR") or Path.home() / ".cohort-sync").expanduser()


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours, of the environment and of the .env file, as `config/settings.py` reads them."""
    given: dict[str, str | None] = {}
    if Path(".env").is_file():
        from dotenv import dotenv_values

        given.update(dotenv_values(".env"))
    given.update(environment)
    prefix = "COHORT_SYNC_"
    return {
        name.upper().removeprefix(prefix): value
        for name, value in given.items()
        if name.upper().startswith(prefix) and value
    }


def _database_answers(url: str) -> bool:
    with suppress(OSError, ValueError):
        if url.startswith("sqlite"):
            import sqlite3

            path = unquote(urlsplit(url).path)[1:]
            with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
            return False
        parts = urlsplit(url)
        hosts = [(parts.hostname or "localhost", parts.port or 5432)]
        if given := parse_qs(parts.query).get("host"):
            hosts = [(host, parts.port or 5432) for one in given for host in one.split(",")]
        return any(_postgres_answers(host, port) for host, port in hosts)
    return False


def _postgres_answers(host: str, port: int) -> bool:
    place = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
    with suppress(OSError), closing(_connected(place)) as there:
        there.sendall(_SSL_REQUEST)
        return there.recv(1) in {b"S", b"N"}
    return False


def _queue_answers(url: str, data_dir: Path) -> bool:
    if not url:
        url = f"unix://{quote(str(embedded_socket(data_dir)))}"
    with suppress(OSError, ValueError):
        parts = urlsplit(url)
        place = (
            unquote(parts.path)
            if parts.scheme == "unix"
            else (parts.hostname or "localhost", parts.port or 6379)
        )
        there = _connected(place)
        with closing(there):
            if parts.scheme == "rediss":
                there = _encrypted(there, parts.hostname or "", parse_qs(parts.query))
            login = [unquote(word) for word in (parts.username, parts.password) if word]
            commands = [["AUTH", *login]] if parts.password else []
            for words in (*commands, ["SET", "cohort-sync:probe", "", "EX", "60"]):
                there.sendall(_command(words))
                if not there.recv(512).startswith(b"+OK"):
                    return False
            return True
    return False


def _connected(place: str | tuple[str, int]) -> socket.socket:
    if isinstance(place, tuple):
        return socket.create_connection(place, timeout=SECONDS)
    there = socket.socket(socket.AF_UNIX)
    there.settimeout(SECONDS)
    try:
        there.connect(place)
    except OSError:
        there.close()
        raise
    return there


def _encrypted(there: socket.socket, host: str, query: Mapping[str, list[str]]) -> ssl.SSLSocket:
    """As redis-py does it by the URL's own parameters."""
    trusted = ssl.create_default_context(cafile=query.get("ssl_ca_certs", [None])[0])
    if query.get("ssl_cert_reqs", [""])[0] == "none":
        trusted.check_hostname, trusted.verify_mode = False, ssl.CERT_NONE
    return trusted.wrap_socket(there, server_hostname=host)


def _command(words: list[str]) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
