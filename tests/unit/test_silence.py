"""When a process is taken for stuck: by its signs, and by the time in which somebody was there to see one."""

from __future__ import annotations

import pytest

from cli.stack.silence import START_SECONDS, Silence
from config.pulse import BEAT_SECONDS, STALE_SECONDS


class Watched:
    """A process and whoever looks at it ten times a second, on a clock of the test's."""

    def __init__(self, *, first: object = 0) -> None:
        self.now, self.beats, self.seen = 1000.0, first, True
        self.silence = Silence(lambda _: self.beats, lambda: self.seen)
        self.silence.begin(self.now)

    def stuck_after(self, most: float) -> float | None:
        """The seconds until it is taken for stuck; None if it is not in that time."""
        began = self.now
        while self.now - began < most:
            self.now += 0.1
            if self.silence.too_long(7, self.now):
                return self.now - began
        return None


def test_one_without_a_sign_is_stuck_after_the_bound() -> None:
    found = Watched().stuck_after(1000)
    assert found == pytest.approx(STALE_SECONDS, abs=3)


def test_one_that_is_busy_for_less_is_not() -> None:
    watched = Watched()
    for number in range(20):
        watched.beats = number
        assert watched.stuck_after(STALE_SECONDS - 1) is None


def test_one_that_starts_has_longer() -> None:
    watched = Watched(first=None)
    assert watched.stuck_after(START_SECONDS - 1) is None
    assert watched.stuck_after(10) is not None
    watched.silence.begin(watched.now)  # the next one
    watched.beats = 1
    assert watched.stuck_after(STALE_SECONDS - 1) is None


@pytest.mark.parametrize("asleep", [STALE_SECONDS, 1e6])
def test_a_machine_that_slept_kills_nobody(asleep: float) -> None:
    watched = Watched()
    for number in range(20):
        assert watched.stuck_after(BEAT_SECONDS) is None
        watched.now += asleep
        assert watched.stuck_after(BEAT_SECONDS) is None
        watched.beats = number
    assert watched.stuck_after(1000) == pytest.approx(STALE_SECONDS, abs=3)


def test_where_no_sign_can_be_given_nobody_is_stuck() -> None:
    watched = Watched()
    watched.seen = False
    assert watched.stuck_after(10 * STALE_SECONDS) is None
    watched.seen = True
    assert watched.stuck_after(2 * STALE_SECONDS) is not None
