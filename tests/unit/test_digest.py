"""The text of a message: what it says, and that it fits wherever it is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from models.observability.deliveries import LINES, Notification, NotificationLine
from monitor import rendering

BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)


def line(
    number: int = 1, *, over: bool = False, again: bool = False, message: str = "It is so."
) -> NotificationLine:
    ended = BEGAN + timedelta(hours=1) if over else None
    return NotificationLine(f"binding {number}", "PAUSED", message, "Do this.", BEGAN, ended, again)


@pytest.mark.parametrize(
    ("needs", "over", "said"),
    [
        (1, 0, "1 thing needs you"),
        (1200, 0, "1,200 things need you"),
        (2, 1, "2 things need you, 1 is over"),
        (1, 2, "1 thing needs you, 2 are over"),
        (0, 1, "1 thing is over"),
        (0, 3, "3 things are over"),
    ],
)
def test_a_title_counts(needs: int, over: int, said: str) -> None:
    assert rendering.title(Notification(needs, over, [])) == f"cohort-sync: {said}"


def test_a_line_for_what_is_new_lasts_or_is_over() -> None:
    message = Notification(2, 1, [line(1), line(2, again=True), line(3, over=True)])
    assert rendering.text(message, 10_000).splitlines() == [
        "binding 1: PAUSED: It is so. Do this.",
        "Still: binding 2: PAUSED: It is so. Do this. (Since 2026-03-02 12:00 UTC.)",
        "Over: binding 3: PAUSED (2026-03-02 12:00 to 2026-03-02 13:00 UTC)",
    ]


@pytest.mark.parametrize(
    ("total", "last"), [(20, "binding 19: "), (21, "and 2 more: "), (9999, "and 9,980 more: ")]
)
def test_twenty_lines_at_most(total: int, last: str) -> None:
    lines = rendering.text(
        Notification(total, 0, [line(n) for n in range(min(total, LINES))]), 10_000
    ).splitlines()
    assert len(lines) == 20
    assert lines[-1].startswith(last)


@pytest.mark.parametrize("room", [80, 140, 500, 2000])
def test_it_fits_and_counts_what_is_left_out(room: int) -> None:
    lines = [line(n, message="word " * 20) for n in range(LINES)]
    said = rendering.text(Notification(100, 0, lines), room)
    assert len(said) <= room
    shown = said.splitlines()
    assert shown[-1] == f"and {100 - len(shown) + 1} more: `cohort-sync notices`"
    assert len(shown) > 1


def test_a_text_of_many_lines_is_one() -> None:
    (said,) = rendering.text(
        Notification(1, 0, [line(message="first\r\n  second\tthird")]), 1000
    ).splitlines()
    assert "first second third" in said
