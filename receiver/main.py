"""The receiver as a process: one listening socket, ended by SIGTERM or Ctrl-C after what it is writing."""

from __future__ import annotations

import socket
from collections.abc import Callable

from config import log_limit
from config.http_server import KERNEL_BACKLOG, HttpServer
from config.logging import configure
from config.pulse import Pulse
from config.settings import Settings
from models.database import Database
from models.errors import ConfigurationError
from receiver.app import MAX_BYTES, Receiver
from receiver.authentication import SourceSecrets


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    max_bytes: int = MAX_BYTES,
    ready: Callable[[str], object],
) -> int:
    """Receive until told to stop; `ready` gets the address once it answers. Port 0 means any free one."""
    configure(settings, "receiver")
    log_limit.limit("receiver.strangers", "uvicorn.error", "asyncio")
    db = Database(settings, prompt=True)
    secrets = SourceSecrets(db)
    listening = _listen(host, port)
    try:
        secrets.start()
        address = f"http://{_shown(host)}:{listening.getsockname()[1]}"
        app = Receiver(db, secrets, max_bytes=max_bytes).app
        pulse = Pulse(settings.data_dir, "receiver")
        HttpServer(app, ready=lambda: ready(address), tick=pulse.beat).run(sockets=[listening])
    finally:
        secrets.close()
        listening.close()
        db.dispose()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(KERNEL_BACKLOG)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            "SETTING_INVALID",
            field="host and port",
            value=f"{host}:{port}",
            hint=f"Nothing can listen there: {error.strerror}. Choose another --port.",
        ) from None
    return found


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
