"""`cli.stack.parent_death` on a machine whose clock jumps: `jumped.py CLOCK PARENT MODE ARGUMENT...`.

CLOCK is a file of one double, the seconds by which this process's clock is wrong just now. Whatever asks for the
time gets it so: `datetime`, `time`, the libraries, and what is forked. The monotonic clock is right, as on a real
machine. It is run by its path and imports nothing of the tests, because the processes of a stack know no checkout.
"""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

import time_machine

from cli.stack import parent_death


def follow(clock: Path) -> None:
    """From here on this process has the file's clock."""
    with clock.open("rb") as file:
        wrong_by = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("d")
    traveller = time_machine.travel(time.time()).start()
    right = traveller.time_ns
    right()  # its clock begins to run now, and not when somebody first asks for the time
    traveller.time_ns = lambda: right() + int(wrong_by[0] * 1e9)  # type: ignore[method-assign]


if __name__ == "__main__":
    follow(Path(sys.argv[1]))
    sys.exit(parent_death.main(sys.argv[2:]))
