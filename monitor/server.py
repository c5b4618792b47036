"""Pages for machines that watch: `/metrics`, and the probes. Read-only, and nothing on them is secret."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config.http_server import HttpServer


class Server:
    """Serves on a socket that is open already, in a thread of its own.

    `ill` is the code of what keeps this process from its work, or none; `live` whether it is anything but stuck.
    """

    def __init__(
        self,
        listening: socket.socket,
        registry: CollectorRegistry,
        ill: Callable[[], str | None],
        live: Callable[[], bool],
    ) -> None:
        self._registry, self._ill, self._live = registry, ill, live
        app = Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/livez", self._livez),
                Route("/healthz", self._readyz),
                Route("/readyz", self._readyz),
            ],
            exception_handlers={HTTPException: _refused, Exception: _failed},
        )
        app.router.redirect_slashes = False
        self._server = HttpServer(app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="server", daemon=True
        )

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what was begun, and end."""
        self._server.should_exit = True
        self._thread.join()

    def _metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": kind})

    def _livez(self, _: Request) -> Response:
        live = self._live()
        return JSONResponse({"status": "ok" if live else "stuck"}, 200 if live else 503)

    def _readyz(self, _: Request) -> Response:
        code = self._ill()
        return JSONResponse({"error": {"code": code}} if code else {"status": "ok"}, 503 if code else 200)


def _refused(_: Request, error: Exception) -> Response:
    """No such page, or another method than GET."""
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
    return JSONResponse({"error": {"code": status.name}}, status)


def _failed(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": {"code": "INTERNAL"}}, 500)
