"""The line of progress on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from cli.bars import amounts, duration


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0, None, None, None), ""),
        ((0, 5_000, None, None), "0 of 5,000 rows"),
        ((1_200, 5_000, 400.4, 9.4), "1,200 of 5,000 rows, 400/s, 9 s left"),
        ((1_200, 5_000, 400.4, None), "1,200 of 5,000 rows, 400/s"),
        ((5_000, 5_000, 400.4, 0.0), "5,000 of 5,000 rows"),
    ],
)
def test_amounts(given: tuple[int, float | None, float | None, float | None], expected: str) -> None:
    assert amounts(*given) == expected


def test_lengths_of_time() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 60, 185)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 05 s",
    ]


@pytest.mark.parametrize("columns", ["80", "60"])
def test_a_narrow_terminal_keeps_the_amounts_on_one_line(columns: str) -> None:
    program = (
        "from cli.bars import shown\n"
        "with shown('beginning') as bar:\n"
        "    bar.tell('run 7 push: ' + 'words ' * 30, 1200, 5000)\n"
        "    bar._progress.refresh()\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": columns, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        assert process.wait(30) == 0
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    line = next(line for line in shown.splitlines() if "1,200 of 5,000 rows" in line)
    assert "run 7" in line
