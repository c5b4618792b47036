"""`make fuzz SECONDS=600 SEED=n`: every door of the product, with what nobody expects, for as long as wanted.

The seed decides what is tried. It prints how much each door was tried, and ends with 1 where a rule was broken: the
smallest input that breaks it comes before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.doors import DOORS, tried

ROUND = 100  # examples


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--door", choices=sorted(DOORS), action="append")
    asked = parser.parse_args()
    counts = dict.fromkeys(asked.door or DOORS, 0)
    for name in counts:
        end = time.monotonic() + asked.seconds / len(counts)
        with tempfile.TemporaryDirectory(prefix="cs-fuzz-") as folder, DOORS[name](Path(folder)) as door:
            number = asked.seed * 1_000_000
            while time.monotonic() < end:
                counts[name] += tried(*door, examples=ROUND, seed=number)
                number += 1
    print(f"seed {asked.seed}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
