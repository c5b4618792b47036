"""A short storm of a fixed seed upon each database; `make chaos` makes longer ones of any seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.run import storm_on
from tests.support import ROOT


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 3), ("postgresql", 4)])
def test_the_promise_is_kept_in_a_storm(database: str, seed: int) -> None:
    with storm_on(database, seed) as storm:
        storm.blow(5.0)
    assert storm.syncs
    assert storm.counts.total()


WATCH = """
import os, struct, sys, time
from datetime import UTC, datetime
from pathlib import Path
from tests.chaos.jumped import follow

def ahead():
    right = os.stat(touched).st_mtime
    return [round(time.time() - right), round(datetime.now(UTC).timestamp() - right)]

clock, touched = Path(sys.argv[1]), Path(sys.argv[2])
clock.write_bytes(struct.pack("d", 0.0))
follow(clock)
for seconds in (0.0, 3600.0, -3600.0, 0.0):
    with clock.open("r+b") as file:
        file.write(struct.pack("d", seconds))
    began = time.monotonic()
    touched.touch()
    if not os.fork():
        assert ahead() == [seconds, seconds], (ahead(), seconds)
        os._exit(0)
    assert os.wait()[1] == 0
    assert ahead() == [seconds, seconds], (ahead(), seconds)
    assert time.monotonic() - began < 60
"""


def test_a_clock_that_jumps_does_so_for_all_of_a_process(tmp_path: Path) -> None:
    """Also for what it forks; the files' times and the monotonic clock stay right."""
    words = [sys.executable, "-c", WATCH, str(tmp_path / "clock"), str(tmp_path / "touched")]
    subprocess.run(words, cwd=ROOT, check=True)
