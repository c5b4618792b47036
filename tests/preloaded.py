"""What the fork server of `tests/forked.py` imports and makes: every command, and what they would at their first use.

Not `worker.app`: it reads the settings when it is imported.
"""

import gc
from importlib import import_module

from sqlalchemy.orm import configure_mappers

from cli.main import COMMANDS

LATER = (
    "apprise",
    "cli.flower.server",
    "cryptography.fernet",
    "models.observability.feed_facts",
    "receiver.main",
    "tests.mains",
    "uvicorn.protocols.http.h11_impl",
    "worker.inspection.check_extension",
    "worker.inspection.comparison",
    "worker.inspection.estimate",
    "worker.inspection.readback",
    "worker.inspection.trace",
    "worker.stages.dry_run",
)
for name in (*(entry.module for entry in COMMANDS.values()), *LATER):
    import_module(name)
configure_mappers()
gc.freeze()  # a collection in a child would copy these pages
