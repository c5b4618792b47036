"""`make chaos SECONDS=600 SEED=n DB=sqlite|postgresql`: real processes, whatever can go wrong, and the promise.

The seed decides which acts come and what each chooses; when they meet the product, the machine does. It prints one line
of counts, and ends with 1 where the promise was broken: the message names binding, run and seed.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.disk import private_mounts
from tests.chaos.run import line, storm_on


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--db", choices=["sqlite", "postgresql"], default="sqlite")
    asked = parser.parse_args()
    if not (small_disk := private_mounts()):
        print("a full disk needs root or user namespaces: this storm has none", file=sys.stderr)
    with storm_on(asked.db, asked.seed, small_disk=small_disk) as storm:
        try:
            storm.blow(asked.seconds)
        except AssertionError as error:
            print(f"broken: {error}", file=sys.stderr)
            return 1
        finally:
            print(line(storm))
    return 0


if __name__ == "__main__":
    sys.exit(main())
