"""The queue's settings, and how a wake-up is put on it.

A message carries a run id and nothing else. The broker is no database: losing every message costs seconds
(the scheduler publishes again what nobody claimed), and delivering one twice is a no-op (a claim is a
compare-and-set on the run row). So nothing here waits, retries or stores a result.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol

from celery import Celery
from celery.events import EventDispatcher
from kombu import Queue
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from config import queue_transport
from config.queue_names import (
    HARD_LIMIT_SECONDS,
    KEY_PREFIX,
    NEXT_QUEUE,
    NUDGES,
    QUEUE,
    QUEUES,
    SOFT_LIMIT_SECONDS,
    STAGES,
    QueueUnavailableError,
)
from config.settings import Settings

FIRST_IN_A_ROW = 3  # messages of runs that go on, before another is taken
NEWS_AT_ONCE = 200  # events in one message to Flower

_UNAVAILABLE = (OperationalError, RedisError, OSError)


def make_app(settings: Settings) -> Celery:
    """The Celery application of any of our processes."""
    queue_transport.use()
    app = Celery("cohort-sync", set_as_current=False)
    app.conf.update(
        broker_url=settings.broker,
        # Redis acknowledges neither at least nor at most once; early acknowledgement without prefetch was the
        # one setting that ran each task once through connection losses and restarts.
        task_acks_late=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        result_backend=None,
        task_store_errors_even_if_ignored=False,
        task_track_started=True,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_reject_on_worker_lost=False,
        task_retry_on_worker_lost=False,
        task_soft_time_limit=SOFT_LIMIT_SECONDS,
        task_time_limit=HARD_LIMIT_SECONDS,
        worker_max_tasks_per_child=1000,
        worker_max_memory_per_child=1_500_000,  # KiB
        worker_soft_shutdown_timeout=0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
        visibility_timeout=2 * HARD_LIMIT_SECONDS,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
        timezone="UTC",
        task_default_queue=QUEUE,
        task_queues=[Queue(name) for name in QUEUES],
        task_create_missing_queues=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


class Publish(Protocol):
    """How a run is put on the queue."""

    def __call__(
        self, run_id: int, stage: str, *, binding: str | None = None, queue: str | None = None
    ) -> None:
        """Wake a worker for the run at `stage`; QueueUnavailableError if the broker can't be reached."""


def publish(
    app: Celery,
    run_id: int,
    stage: str,
    *,
    binding: str | None = None,
    queue: str | None = None,
    **sending: Any,
) -> None:
    """Wake a worker for the run at `stage`; QueueUnavailableError if the broker can't be reached.

    By itself a message goes to `QUEUE`, and to `NEXT_QUEUE` after the run's snapshot. `binding`, its name, is for
    whoever watches tasks: it stands beside the message, whose argument is the id alone.
    """
    try:
        app.send_task(
            f"sync.{stage}",
            args=[run_id],
            argsrepr=f"run {run_id}" if binding is None else f"run {run_id}, {binding}",
            kwargsrepr="",
            ignore_result=True,
            queue=queue or (QUEUE if stage == STAGES[0] else NEXT_QUEUE),
            task_id=f"run-{run_id}-{stage}-{uuid.uuid4().hex[:12]}",
            retry=False,
            **sending,
        )
    except _UNAVAILABLE as error:
        raise QueueUnavailableError from error


def nudge(connection: Redis) -> None:
    """Tell the schedulers that a run wakes before their next tick. One that misses it is a tick late."""
    with suppress(RedisError):
        connection.publish(NUDGES, b"")


@contextmanager
def publishing(app: Celery) -> Iterator[Publish]:
    """`publish` for many messages: the events that Flower shows them by leave together at the end.

    An event for each of them would be half of the work. They are news, not the truth: if the broker goes away
    before they are sent, Flower learns of a task when a worker takes it.
    """
    try:
        with app.producer_pool.acquire(block=True) as producer:
            news = _BufferedEvents(
                producer.connection, app=app, buffer_group=["task"], buffer_limit=NEWS_AT_ONCE
            )
            try:
                # Without a declaration each (0.05 ms): a message to a queue by its name needs none.
                yield partial(publish, app, producer=producer, event_dispatcher=news, declare=[])
            finally:
                with suppress(*_UNAVAILABLE):
                    news.flush()
    except _UNAVAILABLE as error:
        raise QueueUnavailableError from error


class NextFirst:
    """In which order a worker looks at its queues for the next message: see `QUEUES`."""

    def __init__(self) -> None:
        self._others: list[str] = []
        self._all: list[str] = []
        self._in_a_row = 0

    def update(self, names: Iterable[str]) -> None:
        """The worker's queues."""
        self._all = list(names)
        self._others = [name for name in self._all if name != NEXT_QUEUE]

    def consume(self, n: int) -> list[str]:
        """The queues, the first to be looked at first."""
        first = [name for name in self._all if name == NEXT_QUEUE]
        return (first + self._others if self._in_a_row < FIRST_IN_A_ROW else self._others + first)[:n]

    def rotate(self, last_used: str) -> None:
        """A message came from that queue."""
        self._in_a_row = self._in_a_row + 1 if last_used == NEXT_QUEUE else 0
        if last_used in self._others:
            self._others.append(self._others.pop(self._others.index(last_used)))


class _BufferedEvents(EventDispatcher):
    """Keeps what Celery would publish one by one."""

    def publish(self, type: str, fields: dict[str, Any], *_args: Any, **_kwargs: Any) -> None:  # noqa: A002 - Celery's name
        self.send(type, **fields)


def _transport_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "visibility_timeout": 2 * HARD_LIMIT_SECONDS,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "queue_order_strategy": "config.queue:NextFirst",
        "health_check_interval": 15,
        "global_keyprefix": KEY_PREFIX,
    }
    if not settings.broker.startswith("redis+socket:"):
        options["socket_keepalive"] = True
    return options
