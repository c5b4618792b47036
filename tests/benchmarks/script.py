"""Processor seconds of a whole sync, beside a script of a hundred lines for one cohort (`script_rival`).

Of the product every process counts but the sandbox: queue, scheduler, pages and worker, from dispatch to the run's end.
Interpreter and imports count for the script, which is started for each sync. Both talk to one sandbox.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from tests.benchmarks import measure, whole

RIVAL = Path(__file__).with_name("script_rival.py")


def main(members: int = 200_000) -> None:
    """A first sync, 1 % churn, and an unchanged cohort."""
    interpreter = os.environ.get("COHORT_SYNC_RIVALS_PYTHON")
    if interpreter is None:
        print("script: COHORT_SYNC_RIVALS_PYTHON names no interpreter with duckdb; left out")
        return
    lines = []
    with (
        tempfile.TemporaryDirectory(prefix="cs-bench-") as folder,
        whole.product(members) as (door, settings, db),
    ):
        here, state = Path(folder) / "door.json", Path(folder) / "state.parquet"
        here.write_text(json.dumps(door))
        for what in ("first sync", "1 % churn", "unchanged"):
            if what == "1 % churn":
                whole.churn(door, members, seed=7)
            rival = measure.run(interpreter, RIVAL, here, state, whole.RIVAL_FIELD)
            before = measure.processor()
            mine = whole.sync(db, settings)
            spent = measure.processor() - before
            figures = (
                f"cohort-sync {mine.wall:5.2f} s, {spent:.2f} s of processor; script {rival.wall:5.2f} s, "
            )
            lines.append((what, f"{figures}{rival.cpu:.2f} s of processor; {spent - rival.cpu:+.2f} s"))
    measure.table(f"a sync of {members:,} members, beside a script", lines)
