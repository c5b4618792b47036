"""Two pages over HTTP for machines that watch: `/metrics` and `/healthz`. Read-only, and nothing on them is secret.

The standard library's server, a thread a request: what is asked for every few seconds needs no more.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from config import connections

MOST_CONNECTIONS = 64  # each has a thread

log = structlog.get_logger(__name__)


class Server(ThreadingHTTPServer):
    """Serves on a socket that is open already.

    `ill` is the code of what keeps this process from its work, or none; `live` whether it is anything but stuck.
    """

    def __init__(
        self,
        listening: socket.socket,
        registry: CollectorRegistry,
        ill: Callable[[], str | None],
        live: Callable[[], bool],
    ) -> None:
        super().__init__(listening.getsockname()[:2], _Door, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.registry, self.ill, self.live = registry, ill, live
        self._others: connections.Connections[socket.socket] = connections.Connections(
            MOST_CONNECTIONS, close=lambda one: one.shutdown(socket.SHUT_RDWR)
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer it in a thread; what has waited longest makes room."""
        self._others.begin(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It has ended."""
        self._others.end(request)
        super().shutdown_request(request)

    def handle_error(self, _request: Any, _client: Any) -> None:
        """An answer failed in the middle: said, without the standard library's print. Who has gone fails nothing."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            log.error("request_failed", code="INTERNAL", exc_info=sys.exception())


class _Door(BaseHTTPRequestHandler):
    server: Server
    timeout = 10.0  # for a client that says nothing

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, kind, encode(self.server.registry))
        elif path == "/livez":
            live = self.server.live()
            self._answer_json(200 if live else 503, {"status": "ok" if live else "stuck"})
        elif path in {"/healthz", "/readyz"}:
            code = self.server.ill()
            self._answer_json(503 if code else 200, {"error": {"code": code}} if code else {"status": "ok"})
        else:
            self._answer_json(404, {"error": {"code": "NOT_FOUND"}})

    def version_string(self) -> str:
        return "cohort-sync"

    def log_message(self, *_: Any) -> None:
        """A scrape every few seconds is no news."""

    def _answer_json(self, status: int, document: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(document).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        with suppress(ConnectionError, TimeoutError):  # it has gone, or does not read
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
