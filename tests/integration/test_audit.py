"""The audit of the locked packages, with pip-audit itself and advisory sources on localhost."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import audit

TOOLS = Path(sys.prefix) / "tools" / "bin" / "python"
TODAY = date(2026, 11, 25)
FLAW = {
    "id": "OSV-1",
    "summary": "Reads what it should not.",
    "affected": [
        {
            "package": {"name": "second", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}

pytestmark = pytest.mark.skipif(not TOOLS.exists(), reason="the tools are not installed: make check")


class Source:
    """An advisory source that speaks OSV: what it answers for a package, and how it fails."""

    def __init__(self) -> None:
        self.flaws: dict[str, Any] = {}
        self.status = 200
        self.body: bytes | None = None
        self.asked: list[str] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = query["package"]["name"]
                source.asked.append(name)
                found = source.flaws.get(name)
                body = source.body or json.dumps({"vulns": [found]} if found else {}).encode()
                self.send_response(source.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def options(self) -> list[str]:
        return ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{self.server.server_port}"]


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.server.shutdown()
    source.server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "a.lock"
    digest = "0" * 64
    path.write_text(
        f"# made\nfirst==1.0 \\\n    --hash=sha256:{digest} \\\n    --hash=sha256:{digest}\n    # via nobody\n"
        f"second==2.0 \\\n    --hash=sha256:{digest}\n"
    )
    return path


class Auditor:
    """The command, with these sources and on a day."""

    def __init__(self, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.lock = lock
        self.capsys = capsys

    def __call__(
        self, *sources: list[str], accept: tuple[str, ...] = (), today: date = TODAY, seconds: float = 30
    ) -> tuple[int, list[str]]:
        code = audit.main(
            [str(self.lock), *(f"--accept={one}" for one in accept)],
            today=today,
            remembered=self.lock.with_name("audited"),
            sources=sources,
            seconds=(seconds, seconds),
            python=str(TOOLS),
        )
        return code, self.capsys.readouterr().out.splitlines()


@pytest.fixture
def audited(lock: Path, capsys: pytest.CaptureFixture[str]) -> Auditor:
    return Auditor(lock, capsys)


CLEAN = (0, ["audit: no known vulnerability in 2 locked packages"])
UNREACHED = (
    0,
    ["audit: no advisory source can be reached; the lock was not checked, and will be tomorrow"],
)


def test_a_vulnerability_fails_each_time_until_it_is_accepted(source: Source, audited: Auditor) -> None:
    source.flaws["second"] = FLAW
    flawed = (1, ["audit: second 2.0 has OSV-1 (mended in 2.1): Reads what it should not."])
    assert audited(source.options) == flawed
    assert audited(source.options, accept=("OSV-1",)) == CLEAN
    assert audited(source.options) == flawed


def test_a_clean_answer_holds_for_the_day_and_the_lock(source: Source, audited: Auditor) -> None:
    assert audited(source.options) == CLEAN
    assert sorted(set(source.asked)) == ["first", "second"]
    source.flaws["second"] = FLAW
    assert audited(source.options) == CLEAN
    audited.lock.write_text(audited.lock.read_text() + "# changed\n")
    assert audited(source.options)[0] == 1


@pytest.mark.parametrize(("status", "body"), [(503, b"away"), (200, b"<html>log in</html>"), (404, b"{}")])
def test_a_source_that_does_not_answer_is_no_failure(
    status: int, body: bytes, source: Source, audited: Auditor
) -> None:
    source.status, source.body = status, body
    assert audited(source.options) == UNREACHED


def test_the_next_source_is_asked(source: Source, audited: Auditor) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = [
            "--vulnerability-service",
            "osv",
            "--osv-url",
            f"http://127.0.0.1:{closed.getsockname()[1]}",
        ]
        assert audited(nobody) == UNREACHED
        source.flaws["second"] = FLAW
        assert audited(nobody, source.options, today=TODAY + timedelta(days=1))[0] == 1


def test_a_source_that_never_answers_is_given_up(audited: Auditor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = [
            "--vulnerability-service",
            "osv",
            "--osv-url",
            f"http://127.0.0.1:{silent.getsockname()[1]}",
        ]
        assert audited(options, seconds=2) == UNREACHED


@pytest.mark.parametrize("known", [[], ["first"]])
def test_a_package_that_the_source_does_not_know_is_not_clean(
    known: list[str], audited: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip-audit's answer in JSON where the index has no advisories (2.10): it ends with 0 and calls it clean."""

    def asked(lock: Path, *_: object) -> list[dict[str, Any]]:
        names = ["first", "second"] if "second" in lock.read_text() else ["first"]
        return [
            {"name": name, "version": "1.0", "vulns": []}
            if name in known
            else {
                "name": name,
                "skip_reason": f"Dependency not found on PyPI and could not be audited: {name}",
            }
            for name in names
        ]

    monkeypatch.setattr(audit, "_asked", asked)
    partly = (0, ["audit: no known vulnerability in 1 locked packages; nothing is known of 1"])
    assert audited([]) == (partly if known else UNREACHED)
