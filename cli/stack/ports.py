"""The open ports of the processes that serve pages: asked for by settings, kept over a restart of the process.

Whoever starts such a process may open its port first and hand it over; one that is started by itself opens its own.
What is served there is not known here.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from config.settings import Settings
from models.errors import ConfigurationError


@dataclass(frozen=True)
class Port:
    """A process that listens, and the names of its two settings."""

    name: str
    address_setting: str
    port_setting: str

    @property
    def variable(self) -> str:
        """Where a process finds the number of the socket that was opened for it."""
        return f"COHORT_SYNC_{self.name.upper()}_FD"

    def open(self, settings: Settings) -> socket.socket:
        """The open port; a taken one is an error that names the settings."""
        address, port = getattr(settings, self.address_setting), getattr(settings, self.port_setting)
        try:
            family = socket.getaddrinfo(
                address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0][0]
            return socket.create_server((address, port), family=family)
        except OSError as error:
            raise ConfigurationError(
                "PORT_TAKEN",
                process=self.name.capitalize(),
                address=f"{address}:{port}",
                why=os.strerror(error.errno) if error.errno and error.errno > 0 else str(error),
                setting=f"COHORT_SYNC_{self.port_setting.upper()}",
            ) from error

    def handed_over(self) -> socket.socket | None:
        """The port that the starter of this process opened for it, if it did."""
        number = os.environ.pop(self.variable, "")
        return socket.socket(fileno=int(number)) if number else None


FLOWER = Port("flower", "flower_address", "flower_port")
MONITOR = Port("monitor", "monitor_host", "monitor_port")


def url_of(listening: socket.socket) -> str:
    """Where a program on this machine finds it."""
    host, port = listening.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
