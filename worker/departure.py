"""How a worker leaves: its tasks may end, for a while; then what is left of them is cut off and given back.

A kill at any instruction is safe, so nobody has to wait for a long stage: its run is free for the next claim when
this process ends, not when its lease does. Killed itself, a worker gives its runs back when it comes again, by its
name.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from celery.signals import celeryd_after_setup, worker_shutting_down

from config.settings import Settings
from models.database import Database
from models.errors import SyncError
from models.runs import claims

log = structlog.get_logger()

# Less than what supervisors wait for: 30 s with Kubernetes, 25 s with `cohort-sync up`.
GRACE_SECONDS = 20.0
LAST_SECONDS = 1.0
PATIENCE_SECONDS = 4.0


class Departure:
    """Of the worker that this process becomes."""

    def __init__(self, settings: Settings, grace: float = GRACE_SECONDS) -> None:
        self._settings, self._grace = settings, grace
        self._worker: Any = None
        self._name = ""
        celeryd_after_setup.connect(self._begun, weak=False)
        worker_shutting_down.connect(self._asked, weak=False)

    def gone(self) -> None:
        """Every task has ended or was cut off."""
        self._give_back(lost=False)

    def _begun(self, sender: str, instance: Any, **_: Any) -> None:
        self._name, self._worker = str(sender), instance
        self._give_back(lost=True)  # of a process of this name that was killed

    def _asked(self, **_: Any) -> None:
        """SIGTERM or Ctrl-C, in the main thread. A second SIGTERM does not wait."""
        signal.signal(signal.SIGTERM, lambda *_: self._cut_off())
        timer = threading.Timer(self._grace, self._cut_off)
        timer.daemon = True
        timer.start()

    def _cut_off(self) -> None:
        pool = getattr(getattr(self._worker, "pool", None), "_pool", None)
        for process in list(getattr(pool, "_pool", ())):
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        last = threading.Timer(LAST_SECONDS, self._leave)
        last.daemon = True
        last.start()

    def _leave(self) -> None:
        """The pool waits for the answers of tasks that are no more."""
        self.gone()
        os._exit(0)

    def _give_back(self, *, lost: bool) -> None:
        db = Database(self._settings, patience=PATIENCE_SECONDS)
        try:
            if runs := claims.give_back(db, self._name, now=datetime.now(UTC), lost=lost):
                log.info("runs_given_back", runs=runs)
        except SyncError as error:  # then their leases end by themselves
            log.warning("runs_not_given_back", code=error.code)
        finally:
            db.dispose()
