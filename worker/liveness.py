"""A worker's sign of life: Celery's event loop gives it, and so does each attempt to reach a queue that is away."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from celery import bootsteps

from config import queue_transport
from config.pulse import BEAT_SECONDS, Pulse
from config.settings import get_settings


class PulseStep(bootsteps.StartStopStep):
    """Beats from the event loop that takes tasks, and tells that the worker is ready: it takes tasks and orders."""

    requires = ("celery.worker.consumer.control:Control",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        queue_transport.on_attempt = _pulse().beat

    def start(self, parent: Any) -> None:
        """The consumer is connected."""
        _pulse().ready(True)
        self._timer = parent.timer.call_repeatedly(BEAT_SECONDS, _pulse().beat)

    def stop(self, _parent: Any) -> None:
        """The consumer has lost its connection, or ends."""
        if self._timer is not None:
            self._timer.cancel()
            _pulse().ready(False)


@lru_cache(maxsize=1)
def _pulse() -> Pulse:
    return Pulse(get_settings().data_dir, "worker")
