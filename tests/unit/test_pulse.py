"""A process's file: when it beats, and whether it has told that it can do its work."""

from __future__ import annotations

import os
from pathlib import Path

from config import pulse


def test_ready_is_what_was_told_last_and_a_beat_keeps_it(tmp_path: Path) -> None:
    now = [0.0]
    mine = pulse.Pulse(tmp_path, "worker", lambda: now[0])

    def ready() -> bool:
        return pulse.is_ready(tmp_path, "worker", os.getpid())

    assert not ready()
    mine.beat()
    assert pulse.last_beat(tmp_path, "worker", os.getpid()) is not None
    assert not ready()
    mine.ready(True)
    assert ready()
    for _ in range(3):
        now[0] += pulse.BEAT_SECONDS
        mine.beat()
        assert ready()
    mine.ready(False)
    assert not ready()
    mine.ready(True)
    mine.stop()
    assert not ready()


def test_what_an_earlier_process_of_that_number_has_told_counts_for_nothing(tmp_path: Path) -> None:
    mine = pulse.Pulse(tmp_path, "worker")
    mine.ready(True)
    path = next((tmp_path / "run").iterdir())
    told = path.read_bytes()
    mine.stop()
    path.write_bytes(told)  # as after a kill: nobody holds it
    assert not pulse.is_ready(tmp_path, "worker", os.getpid())
    pulse.Pulse(tmp_path, "worker").beat()
    assert not pulse.is_ready(tmp_path, "worker", os.getpid())
