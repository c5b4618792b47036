"""A scheduler process whose clock is a file: `simulated_scheduler.py CLOCK`, settings from the environment.

Everything but the clock and the pace is the product's own loop.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from config.graceful_stop import GracefulStop
from config.settings import Settings
from models.database import Database
from scheduler.main import Loop
from scheduler.publish import Publisher

clock_file = Path(sys.argv[1])
settings = Settings(_env_file=None)
stop = GracefulStop()
stop.install()
Loop(
    Database(settings),
    Publisher(settings),
    tick_seconds=settings.tick_seconds,
    clock=lambda: datetime.fromtimestamp(float(clock_file.read_text()), UTC),
).run(stop)
