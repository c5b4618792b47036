"""`make bench`: measured on this machine, now, beside a rival. `make bench BENCH="beat waiting"`: these alone.

Without a name all run but the large ones, of 20 million members: `all` takes 15 GB of disk. Two ask for rivals that
are no dependencies, in an interpreter that COHORT_SYNC_RIVALS_PYTHON names; `make bench` installs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    beat,
    diffs,
    history,
    journal,
    needs,
    pages,
    parts,
    readback,
    rest,
    rivals,
    scheduler,
    scrape,
    script,
    shared,
    waiting,
    webhook,
    webhook_run,
    whole,
)

USUAL: dict[str, Callable[[], None]] = {
    "codec": parts.codec,
    "imports": parts.imports,
    "diff-1m": lambda: diffs.churn(1_000_000, 7),
    "diff-5m": lambda: diffs.churn(5_000_000, 5),
    "email-1m": lambda: diffs.churn(1_000_000, 5, "email"),
    "keys-1m": lambda: diffs.kinds(1_000_000, 5),
    "rest": rest.main,
    "beat": beat.main,
    "waiting": waiting.main,
    "shared-40": lambda: shared.together(40, 1.0),
    "shared-40-postgresql": lambda: shared.together(40, 1.0, "postgresql"),
    "shared-200": lambda: shared.together(200, 1.0),
    "shared-40-slow": lambda: shared.together(40, 10.0),
    "shared-150": lambda: shared.together(150, 0.0, destinations=50),
    "shared-large": shared.beside_a_large,
    "history": history.main,
    "history-run": history.runs,
    "scheduler": scheduler.main,
    "needs": needs.main,
    "scrape": scrape.main,
    "pages": pages.main,
    "journal": journal.main,
    "whole": whole.main,
    "script": script.main,
    "webhook": webhook.main,
    "webhook-run": webhook_run.main,
    "readback": readback.main,
    "email-5m": lambda: diffs.churn(5_000_000, 3, "email"),
    "rivals-1m": lambda: rivals.rivals(1_000_000, 3),
    "rivals-5m": lambda: rivals.rivals(5_000_000, 3),
    "compaction-5m": lambda: parts.compaction(5_000_000),
    "shapes-5m": lambda: diffs.shapes(5_000_000, 1),
}
LARGE: dict[str, Callable[[], None]] = {
    "diff-20m": lambda: diffs.churn(20_000_000, 3),
    "email-20m": lambda: diffs.churn(20_000_000, 3, "email"),
    "first-20m": lambda: diffs.first(20_000_000, 2),
    "shapes-20m": lambda: diffs.shapes(20_000_000, 1),
}


def main(names: list[str]) -> None:
    """Run the named ones."""
    known = USUAL | LARGE
    if "all" in names:
        names = list(known)
    for name in names or USUAL:
        if name not in known:
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(known)}, all")
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
