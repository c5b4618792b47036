"""Which rows become messages, and when again: on both databases, with a real broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from config.queue_names import KEY_PREFIX
from config.settings import Settings
from models.database import Database
from models.runs import outbox
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from scheduler.publish import STALE_BACKLOG, STALE_EMPTY, WAKING_AT_ONCE, Published, Publisher
from tests.factories import make_binding, make_destination, make_source
from tests.support import QUEUE_KEY, WAKE_KEY, Valkey

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def publisher(stack: Settings) -> Any:
    made = Publisher(stack)
    yield made
    made.close()


@pytest.fixture
def run_in(db: Database) -> Callable[..., int]:
    """Insert a run with the given columns; its id."""
    make_source(db)
    make_destination(db)

    def insert(state: RunState, **columns: Any) -> int:
        binding = make_binding(db)
        with db.write() as session:
            run = SyncRun(
                binding=session.get_one(CohortBinding, binding.id),
                trigger=Trigger.SCHEDULE,
                scheduled_for=columns.pop("scheduled_for", NOON),
                state=state,
                created_at=NOON,
                finished_at=NOON if state.finished else None,
                **columns,
            )
            session.add(run)
            session.flush()
            return run.id

    return insert


def published_at(db: Database, run_id: int) -> datetime | None:
    with db.read() as session:
        return session.scalar(select(SyncRun.published_at).where(SyncRun.id == run_id))


def test_queued_run_is_published_once_with_its_id_alone(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    run = run_in(RunState.QUEUED)
    assert publisher.publish(db, NOON) == Published(1)
    assert valkey.messages() == [("sync.snapshot", run)]
    assert published_at(db, run) == NOON
    assert publisher.publish(db, NOON + SECOND) == Published(0)


def test_each_stage_has_its_task(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    ids = {stage: run_in(RunState.QUEUED, stage=stage) for stage in Stage}
    publisher.publish(db, NOON)
    assert sorted(valkey.messages()) == sorted((f"sync.{stage}", run) for stage, run in ids.items())


def test_oldest_occurrence_goes_first_and_who_only_wakes_stands_in_a_queue_of_its_own(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    third = run_in(RunState.QUEUED, scheduled_for=NOON)
    first = run_in(RunState.RUNNING, lease_until=NOON - SECOND, scheduled_for=NOON - 2 * SECOND)
    waking = run_in(RunState.WAITING, wake_at=NOON, scheduled_for=NOON - SECOND)
    publisher.publish(db, NOON)
    assert (valkey.client.llen(QUEUE_KEY), valkey.client.llen(WAKE_KEY)) == (2, 1)
    assert [run for _, run in valkey.messages()] == [first, third, waking]


def test_a_crowd_that_wakes_neither_floods_the_broker_nor_keeps_a_new_run_waiting(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    crowd = [run_in(RunState.WAITING, wake_at=NOON - n * SECOND) for n in range(WAKING_AT_ONCE + 5)]
    assert publisher.publish(db, NOON) == Published(WAKING_AT_ONCE)
    assert publisher.publish(db, NOON) == Published(0), "nobody has taken any yet"
    new = run_in(RunState.QUEUED)
    assert publisher.publish(db, NOON) == Published(1)
    assert valkey.pop() == ("sync.snapshot", new)
    woken = [run for _, run in valkey.messages()]
    assert woken == crowd[: -WAKING_AT_ONCE - 1 : -1], "who waits longest is first"
    for _ in range(5):
        valkey.pop()
    assert publisher.publish(db, NOON) == Published(5)


def test_bounded_tick_goes_on_with_the_rest(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    runs = [run_in(RunState.QUEUED, scheduled_for=NOON + n * SECOND) for n in range(5)]
    assert publisher.publish(db, NOON, limit=3) == Published(3, more=True)
    assert publisher.publish(db, NOON, limit=3) == Published(2)
    assert [run for _, run in valkey.messages()] == runs


def test_run_that_ended_or_waits_for_a_person_or_another_run_is_not_published(
    db: Database, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    for state in RunState:
        if state.finished or state in {RunState.HELD, RunState.DEFERRED}:
            run_in(state, lease_until=NOON - SECOND, wake_at=NOON - SECOND)
    assert publisher.publish(db, NOON) == Published(0)


@pytest.mark.parametrize(
    ("state", "column"), [(RunState.WAITING, "wake_at"), (RunState.RUNNING, "lease_until")]
)
def test_waiting_run_is_woken_and_ended_lease_is_rescued_once(
    db: Database,
    valkey: Valkey,
    publisher: Publisher,
    run_in: Callable[..., int],
    state: RunState,
    column: str,
) -> None:
    run = run_in(state, published_at=NOON - SECOND, **{column: NOON})
    assert publisher.publish(db, NOON - SECOND / 2) == Published(0)
    assert publisher.publish(db, NOON + SECOND) == Published(1)
    assert publisher.publish(db, NOON + 2 * SECOND) == Published(0)
    assert valkey.messages() == [("sync.snapshot", run)]


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.WAITING, RunState.RUNNING])
def test_lost_message_is_sent_again_soon_and_a_backlog_is_not_multiplied(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int], state: RunState
) -> None:
    run = run_in(state, wake_at=NOON, lease_until=NOON)
    publisher.publish(db, NOON)
    assert publisher.publish(db, NOON + STALE_EMPTY) == Published(0), "its message waits its turn"
    valkey.client.flushall()
    assert publisher.publish(db, NOON + STALE_EMPTY - SECOND) == Published(0)
    assert publisher.publish(db, NOON + STALE_EMPTY) == Published(1)
    assert publisher.publish(db, NOON + STALE_EMPTY + STALE_BACKLOG - SECOND) == Published(0)
    assert publisher.publish(db, NOON + STALE_EMPTY + STALE_BACKLOG) == Published(1)
    assert valkey.messages() == [("sync.snapshot", run)] * 2


def test_broker_that_is_down_costs_nothing_but_time(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    run = run_in(RunState.QUEUED)
    valkey.kill()
    assert publisher.publish(db, NOON) == Published(0)
    assert published_at(db, run) is None
    valkey.start()
    assert publisher.publish(db, NOON) == Published(0), "not asked again at once"
    publisher._ask_again = 0
    assert publisher.publish(db, NOON) == Published(1)
    assert valkey.messages() == [("sync.snapshot", run)]


def test_broker_that_dies_in_the_middle_gets_the_rest_later(
    db: Database, valkey: Valkey, publisher: Publisher, run_in: Callable[..., int]
) -> None:
    runs = [run_in(RunState.QUEUED, scheduled_for=NOON + n * SECOND) for n in range(3)]
    sent: list[int] = []
    original = publisher._app.send_task

    def send_then_die(name: str, args: list[int], **options: Any) -> None:
        original(name, args=args, **options)
        sent.extend(args)
        valkey.kill()

    publisher._app.send_task = send_then_die
    assert publisher.publish(db, NOON) == Published(1)
    assert sent == runs[:1]
    assert [published_at(db, run) for run in runs] == [NOON, None, None]


def test_two_schedulers_do_not_publish_the_same_row(db: Database, run_in: Callable[..., int]) -> None:
    runs = [run_in(RunState.QUEUED) for _ in range(4)]
    with db.write() as session:
        mine = outbox.mark_published(session, runs[:3], NOON, STALE_EMPTY)
    with db.write() as session:
        others = outbox.mark_published(session, runs, NOON, STALE_EMPTY)
    assert [run for run, _ in mine] == runs[:3]
    assert [run for run, _ in others] == runs[3:]


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_row_that_another_scheduler_is_marking_is_passed_over(
    db: Database, run_in: Callable[..., int]
) -> None:
    runs = [run_in(RunState.QUEUED) for _ in range(2)]
    with db.write() as first:
        assert [run for run, _ in outbox.mark_published(first, runs[:1], NOON, STALE_EMPTY)] == runs[:1]
        with db.write() as second:
            others = outbox.mark_published(second, runs, NOON, STALE_EMPTY)
    assert [run for run, _ in others] == runs[1:]


def test_scheduler_shows_that_it_ticks(valkey: Valkey, publisher: Publisher) -> None:
    publisher.beat(NOON)
    (key,) = valkey.client.keys(f"{KEY_PREFIX}scheduler:*")
    assert valkey.client.get(key) == NOON.isoformat().encode()
    assert 0 < valkey.client.ttl(key) <= 30
    publisher.close()
    assert valkey.client.keys(f"{KEY_PREFIX}scheduler:*") == []
