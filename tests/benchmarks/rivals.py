"""The same question put to polars and to DuckDB, as a reader would write it: what the worker's own columns save.

Each reads the new CSV and the old members, and counts who entered and who left. The old members are a Parquet
file, the best case for both; the worker's state stands in SQLite, is kept with the original texts, and its
batches are planned. COHORT_SYNC_RIVALS_PYTHON names an interpreter that has polars and duckdb, which are no
dependencies here; without it there is nothing to compare with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import diffs
from tests.benchmarks.measure import Run, interleaved, python, run, show

POLARS_MAKE = """
import polars as pl, sys
key = pl.col("user_id").str.strip_chars_end(" ").str.to_lowercase()
pl.scan_csv(sys.argv[1]).select(key).filter(pl.col("user_id") != "").unique().sort("user_id").sink_parquet(sys.argv[2])
"""
POLARS = """
import polars as pl, sys
key = pl.col("user_id").str.strip_chars_end(" ").str.to_lowercase()
new = pl.scan_csv(sys.argv[1]).select(key).filter(pl.col("user_id") != "")
old = pl.scan_parquet(sys.argv[2])
count = pl.len()
entered = new.unique().join(old, on="user_id", how="anti").select(count)
exited = old.join(new, on="user_id", how="anti").select(count)
print([part.item() for part in pl.collect_all([entered, exited], engine="streaming")])
"""
DUCKDB = """
import duckdb, sys
limits = {"memory_limit": sys.argv[3], "temp_directory": sys.argv[4], "preserve_insertion_order": False}
base = duckdb.connect(config=limits)
base.execute("set enable_progress_bar = false")
base.execute("create temp table new as select distinct lower(rtrim(user_id, ' ')) as user_id from "
             "read_csv(?, all_varchar=true) where user_id <> ''", [sys.argv[1]])
print(base.execute("select count(*) filter (o.user_id is null), count(*) filter (n.user_id is null) from new n "
                   "full join read_parquet(?) o on n.user_id = o.user_id", [sys.argv[2]]).fetchone())
"""


def rivals(n: int, times: int) -> None:
    """One per cent churn."""
    interpreter = os.environ.get("COHORT_SYNC_RIVALS_PYTHON")
    if interpreter is None:
        print("rivals: COHORT_SYNC_RIVALS_PYTHON names no interpreter with polars and duckdb; left out")
        return
    before, after = diffs.pair(n, n // 200, "uuid")
    state = diffs.state_of(before, n)
    old = before.with_suffix(".parquet")
    if not old.exists():
        run(interpreter, "-c", POLARS_MAKE, before, old)
    candidates: dict[str, Callable[[], Run]] = {
        "diff": lambda: python("diff_child", state, after),
        "polars": lambda: run(interpreter, "-c", POLARS, after, old),
    }
    spill = str(Path(after).parent / "duckdb-spill")
    for limit in ("900MB", "8GB"):
        candidates[f"duckdb, {limit}"] = lambda limit=limit: run(  # type: ignore[misc]
            interpreter, "-c", DUCKDB, after, old, limit, spill
        )
    found = interleaved(times, [after, old, state], **candidates)
    show(f"rivals, {n:,} members, 1 % churn", found, "diff")
    for name, runs in found.items():
        print(f"  {name}: {runs[-1].out}")
