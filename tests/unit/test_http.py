"""What may have happened when no answer came, and how long to wait when one says so."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import certificates
from worker.vendors.http import (
    RETRY_AFTER_MAX,
    AnswerLostError,
    Http,
    NotSentError,
    json_of,
    retry_after,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def answering(
    reply: bytes | None, context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request, sends `reply` (none: nothing) and closes; its address and what it read."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                    connection.settimeout(2)
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    with connection:
                        seen.append(connection.recv(65536))
                        if reply is not None:
                            connection.sendall(reply)
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.getsockname()[1]}/", seen
        finally:
            stop.set()
            thread.join()


def failure(url: str, **options: Any) -> NotSentError | AnswerLostError:
    """The error of one request."""
    client = Http("MC_UNAVAILABLE", read_seconds=0.3, connect_seconds=0.3)
    with pytest.raises((NotSentError, AnswerLostError)) as caught:
        client.send("GET", url, **options)
    assert client.count == 1
    client.close()
    return caught.value


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"nonsense\r\n\r\n", None]
)
def test_whatever_was_sent_and_not_answered_is_lost(reply: bytes | None) -> None:
    with answering(reply) as (url, seen):
        assert isinstance(failure(url), AnswerLostError)
        assert len(seen) == 1  # and it was sent once


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://nowhere.invalid/", "http://a..b/", "http:///nothing", "http://[bad/"],
)
def test_whatever_made_no_connection_was_not_sent(url: str) -> None:
    assert isinstance(failure(url), NotSentError)


@pytest.mark.parametrize(
    ("url", "unknown"), [("http://nowhere.invalid/", True), ("http://127.0.0.1:1/", False)]
)
def test_name_that_does_not_exist_is_told_apart(url: str, unknown: bool) -> None:
    assert failure(url).context["unknown_host"] is unknown


def test_proxy_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert isinstance(failure("https://vendor.invalid/"), NotSentError)


def test_certificate_that_nobody_signed(tmp_path: Path) -> None:
    """The handshake ends before the request, so the vendor has seen nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", context) as (url, seen):
        assert isinstance(failure(url), NotSentError)
        assert seen == []


def self_signed(directory: Path) -> Path:
    """A key and a certificate for 127.0.0.1 in one file."""
    path = directory / "self-signed.pem"
    path.write_bytes(b"".join(certificates.self_signed("127.0.0.1")))
    return path


@pytest.mark.parametrize("status", [413, 429, 503])
def test_answer_with_retry_after_is_an_answer(status: int) -> None:
    """urllib3 takes these for failures of its own if it is let."""
    reply = f"HTTP/1.1 {status} X\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n".encode()
    with answering(reply) as (url, seen):
        client = Http("MC_UNAVAILABLE")
        response = client.send("GET", url)
        assert (response.status_code, retry_after(response, now=NOW, default=1)) == (status, 9.0)
        assert len(seen) == 1
        client.close()


def test_redirect_is_an_answer_and_is_not_followed() -> None:
    with answering(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n") as (url, seen):
        client = Http("MC_UNAVAILABLE")
        assert client.send("GET", url).status_code == 302
        assert len(seen) == 1
        client.close()


def test_netrc_gives_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, seen):
        client = Http("MC_UNAVAILABLE")
        client.send("GET", url)
        assert b"authorization" not in seen[0].lower()
        client.close()


def test_nothing_secret_is_in_the_error() -> None:
    error = failure("http://user:hunter2@127.0.0.1:1/file?X-Amz-Signature=abc")
    assert "hunter2" not in f"{error}{error.__cause__}{error.context}"
    assert "Signature" not in f"{error}{error.__cause__}{error.context}"


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("7", "", 7.0),
        (" 7 ", "", 7.0),
        ("0.5", "", 0.5),
        ("Sun, 01 Mar 2026 12:01:00 GMT", "", 60.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", "", 0.0),
        ("Sun, 01 Mar 2026 12:01:00", "", 60.0),
        ("-5", "", 30.0),
        ("soon", "", 30.0),
        ("\u00b2", "", 30.0),
        ("99999999", "", RETRY_AFTER_MAX),
        ("9" * 400, "", RETRY_AFTER_MAX),
        ("", '{"retryAfter": 5}', 5.0),
        ("", '{"retryAfter": "5"}', 5.0),
        ("", '{"retryAfter": null}', 30.0),
        ("", "[1]", 30.0),
        ("", "Too Many Requests", 30.0),
        ("7", '{"retryAfter": 5}', 7.0),
    ],
)
def test_how_long_to_wait(header: str, body: str, seconds: float) -> None:
    response = requests.Response()
    response._content = body.encode()
    if header:
        response.headers["Retry-After"] = header
    assert retry_after(response, now=NOW, default=30.0) == seconds


BIG = (1 << 20) + 1


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", b" " * BIG),
        ("gzip", gzip.compress(b" " * BIG)),
        ("gzip, gzip", gzip.compress(gzip.compress(b" " * BIG))),
        ("deflate", zlib.compress(b" " * BIG)),
    ],
    ids=["plain", "gzip", "gzip twice", "deflate"],
)
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "500 Broken"])
def test_an_answer_is_read_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, encoding: str, body: bytes, status: str
) -> None:
    monkeypatch.setattr("worker.vendors.http.ANSWER_BYTES", BIG - 1)
    head = (
        f"HTTP/1.1 {status}\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    with answering(head + body) as (url, _):
        error = failure(url)
    assert isinstance(error, AnswerLostError)
    assert "larger than" in error.message


def test_an_answer_that_has_no_end_is_given_up() -> None:
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n") as url:
        client = Http("MC_UNAVAILABLE", read_seconds=5, answer_seconds=0.3)
        with pytest.raises(AnswerLostError, match=r"did not end within 0\.3 seconds"):
            client.send("GET", url)
        client.close()


def test_an_answer_comes_unpacked_and_whole() -> None:
    body = gzip.compress(b'{"a": 1}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(head + body) as (url, _):
        client = Http("MC_UNAVAILABLE")
        response = client.send("GET", url)
        client.close()
    assert (response.status_code, json_of(response), response.content) == (200, {"a": 1}, b'{"a": 1}')


def test_json_that_is_nested_too_deep_is_none() -> None:
    response = requests.Response()
    response._content = b"[" * 500_000 + b"]" * 500_000
    assert json_of(response) is None


@contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """A server that sends a head, and then a byte every twentieth of a second; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(head)
                while not stop.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()
