"""`python -m tests.benchmarks [name …]`: measured on this machine, now, beside a rival.

Without a name the short ones run; `all` runs everything, which takes 20 minutes and 15 GB of disk. `beat` (schedules
due in one minute) and `rivals-*` compare with what COHORT_SYNC_RIVALS_PYTHON names an interpreter for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import beat, diffs, journal, parts, rivals, scheduler, waiting, whole

SHORT: dict[str, Callable[[], None]] = {
    "codec": parts.codec,
    "imports": parts.imports,
    "diff-1m": lambda: diffs.churn(1_000_000, 7),
    "diff-5m": lambda: diffs.churn(5_000_000, 5),
    "email-1m": lambda: diffs.churn(1_000_000, 5, "email"),
}
LONG: dict[str, Callable[[], None]] = {
    "beat": beat.main,
    "waiting": waiting.main,
    "scheduler": scheduler.main,
    "journal": journal.main,
    "whole": whole.main,
    "email-5m": lambda: diffs.churn(5_000_000, 3, "email"),
    "rivals-1m": lambda: rivals.rivals(1_000_000, 3),
    "rivals-5m": lambda: rivals.rivals(5_000_000, 3),
    "compaction-5m": lambda: parts.compaction(5_000_000),
    "diff-20m": lambda: diffs.churn(20_000_000, 3),
    "first-20m": lambda: diffs.first(20_000_000, 2),
    "shapes-5m": lambda: diffs.shapes(5_000_000, 1),
    "shapes-20m": lambda: diffs.shapes(20_000_000, 1),
}


def main(names: list[str]) -> None:
    """Run the named ones."""
    known = SHORT | LONG
    if "all" in names:
        names = list(known)
    for name in names or SHORT:
        if name not in known:
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(known)}, all")
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
