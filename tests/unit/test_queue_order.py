"""Which queue a worker takes its next message from."""

from __future__ import annotations

from collections import Counter

from kombu.utils.scheduling import cycle_by_name

from config.queue import FIRST_IN_A_ROW, make_app
from config.queue_names import NEXT_QUEUE, QUEUE, QUEUES, WAKE_QUEUE
from config.settings import Settings


def taken(messages: dict[str, int], times: int) -> list[str]:
    """From which queues the next messages come, as the broker's BRPOP takes them: the first that has one."""
    app = make_app(Settings(_env_file=None))  # type: ignore[call-arg]
    cycle = cycle_by_name(app.conf.broker_transport_options["queue_order_strategy"])()
    cycle.update(list(QUEUES))
    left, found = Counter(messages), []
    for _ in range(times):
        name = next(name for name in cycle.consume(len(QUEUES)) if left[name])
        left[name] -= 1
        cycle.rotate(name)
        found.append(name)
    return found


def test_runs_that_go_on_are_first_but_keep_nobody_from_its_start() -> None:
    found = taken(dict.fromkeys(QUEUES, 100), 16)
    assert found[: FIRST_IN_A_ROW + 1] == [NEXT_QUEUE] * FIRST_IN_A_ROW + [QUEUE]
    assert Counter(found) == {NEXT_QUEUE: 12, QUEUE: 2, WAKE_QUEUE: 2}


def test_without_runs_that_go_on_the_others_are_taken_in_turn() -> None:
    assert taken({QUEUE: 9, WAKE_QUEUE: 9}, 4) == [QUEUE, WAKE_QUEUE, QUEUE, WAKE_QUEUE]


def test_runs_that_go_on_are_taken_while_nothing_else_waits() -> None:
    assert taken({NEXT_QUEUE: 9, QUEUE: 1}, 9) == [NEXT_QUEUE] * 3 + [QUEUE] + [NEXT_QUEUE] * 5
