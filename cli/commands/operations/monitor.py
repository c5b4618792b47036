"""`cohort-sync monitor`: its port, and where it is. What it watches and serves stands in `monitor/`."""

from __future__ import annotations

import sys

from cli.stack import ports
from config.settings import Settings


def run(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from monitor.main import serve

    listening = ports.MONITOR.handed_over()
    if listening is None:
        listening = ports.MONITOR.open(settings)
        print(f"Metrics are at {ports.url_of(listening)}/metrics", file=sys.stderr)
    return serve(settings, listening)
