"""The process that `diffs` measures: one snapshot against a state in SQLite, the batches planned into it.

    python -m tests.benchmarks.diff_child STATE.db SNAPSHOT.csv [fold]

With `fold` the batches are compacted into the state, which is how the benchmarks make their states.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from models.contact_keys.codec import row_overhead
from worker.membership.diff import Diff, StateReader, compare
from worker.membership.key_sources import CsvFile

TABLES = """
create table if not exists member_chunk (part integer primary key, n integer not null, keys blob not null);
create table if not exists push_batch (
    seq integer primary key, direction text not null, n integer not null, keys blob not null
);
"""


def opened(path: Path) -> sqlite3.Connection:
    """The state's database."""
    base = sqlite3.connect(path)
    base.execute("pragma journal_mode = wal")
    base.executescript(TABLES)
    return base


def chunks(base: sqlite3.Connection) -> Iterator[bytes]:
    """The stored base."""
    for (keys,) in base.execute("select keys from member_chunk order by part"):
        yield keys


def plan(base: sqlite3.Connection, found: Diff) -> None:
    """The batches, in one transaction."""
    with base:
        base.execute("delete from push_batch")
        base.executemany(
            "insert into push_batch (direction, n, keys) values (?, ?, ?)",
            (
                (batch.direction, batch.n, batch.keys)
                for batch in found.batches(row_overhead=row_overhead("Contact Key", "cohort_a", value=True))
            ),
        )


def fold(base: sqlite3.Connection, work: Path) -> float:
    """The batches into a new generation; seconds it took."""
    from worker.membership.compaction import compact

    start = time.perf_counter()
    deltas = base.execute("select direction, keys from push_batch order by seq")
    with base:
        base.execute("create temporary table fresh (n integer, keys blob)")
        base.executemany("insert into fresh values (?, ?)", compact(chunks(base), deltas, workdir=work))
        base.execute("delete from member_chunk")
        base.execute("insert into member_chunk (n, keys) select n, keys from fresh")
        base.execute("delete from push_batch")
    return time.perf_counter() - start


def main() -> None:
    """Diff, plan, and say what was found."""
    base = opened(Path(sys.argv[1]))
    members = base.execute("select coalesce(sum(n), 0) from member_chunk").fetchone()[0]
    state = StateReader(lambda: chunks(base), lambda: iter(()), lambda: iter(()), members)
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as work:
        start = time.perf_counter()
        found = compare(
            CsvFile(Path(sys.argv[2]), "user_id", 1 << 40), state, workdir=Path(work), seed=time.time_ns()
        )
        compared = time.perf_counter()
        plan(base, found)
        took = {"compare": compared - start, "plan": time.perf_counter() - compared}
        if "fold" in sys.argv:
            took["fold"] = fold(base, Path(work))
    print(json.dumps({**asdict(found.counts), **{name: round(seconds, 2) for name, seconds in took.items()}}))


if __name__ == "__main__":
    main()
