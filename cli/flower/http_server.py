"""Flower's port, with an end to everything that a stranger could draw out."""

from __future__ import annotations

from typing import Any

from tornado.httpserver import HTTPServer

from config import connections

IDLE_SECONDS = 60.0  # for a request's head as well; tornado's own is an hour
BODY_SECONDS = 10.0
BODY_BYTES = 1_000_000


class FlowerServer(HTTPServer):
    """Tornado's server with limits; a connection that has waited longest makes room for a new one."""

    def initialize(self, *given: Any, **named: Any) -> None:
        """Tornado's constructor."""
        self._others: connections.Connections[Any] = connections.Connections(
            connections.most(), close=lambda one: one.stream.close()
        )
        named["idle_connection_timeout"], named["body_timeout"] = IDLE_SECONDS, BODY_SECONDS
        named["max_body_size"] = BODY_BYTES
        super().initialize(*given, **named)

    def start_request(self, server_conn: Any, request_conn: Any) -> Any:
        """A connection waits for a request."""
        self._others.begin(server_conn)
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: Any) -> None:
        """A connection has ended."""
        self._others.end(server_conn)
        super().on_close(server_conn)
