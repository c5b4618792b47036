"""An HTTP server that notices are sent to: it keeps what it was told, and can be deaf, slow or away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PASSWORD = "ear-password-3f9c"


class Ear:
    """One listener. `status` is what it answers; while `hold` is not set, it answers nothing."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        self._server = _Server(("127.0.0.1", 0), self)
        self.port = self._server.server_address[1]
        self._serve()

    @property
    def url(self) -> str:
        """Its URL as apprise writes it, with a password that must never be shown."""
        return f"json://ear:{PASSWORD}@127.0.0.1:{self.port}/tell"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.heard]

    @property
    def last(self) -> list[str]:
        """The lines of the last message."""
        lines: list[str] = self.heard[-1]["message"].splitlines()
        return lines

    def vanish(self) -> None:
        """Nobody listens at the port any more."""
        self._server.shutdown()
        self._server.server_close()

    def return_(self) -> None:
        """Listen again, at the same port."""
        self._server = _Server(("127.0.0.1", self.port), self)
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], ear: Ear) -> None:
        self.ear = ear
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        ear = self.server.ear
        body = self.rfile.read(int(self.headers["Content-Length"]))
        ear.asked += 1
        ear.hold.wait(30)
        if ear.status == 200:
            ear.heard.append(json.loads(body))
        self.send_response(ear.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening() -> Iterator[Ear]:
    """An ear that holds nobody up at its end."""
    found = Ear()
    yield found
    found.hold.set()
    found.vanish()
