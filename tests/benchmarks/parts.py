"""The pieces: codec, compaction, and what an import costs."""

from __future__ import annotations

import random
import sys
import uuid
from pathlib import Path

from tests.benchmarks import diffs
from tests.benchmarks.measure import folder, interleaved, python, run, show, spread, table

IMPORTS = {
    "bare interpreter": "pass",
    "numpy": "import numpy",
    "polars": "import polars",
    "polars and numpy": "import polars, numpy",
    "duckdb": "import duckdb",
    "worker.membership.diff": "import worker.membership.diff",
}


def codec() -> None:
    """25,000 keys, one request."""
    from models.contact_keys.codec import decode_keys, encode_keys, row_bodies

    dice = random.Random(1)
    for kind, keys in (
        ("uuid", [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(25_000)]),
        ("email", [f"{dice.getrandbits(40):x}.name@mail{dice.randrange(40)}.example" for _ in range(25_000)]),
    ):
        blob = encode_keys(keys)
        each, in_order = len(blob) / len(keys), len(encode_keys(sorted(keys))) / len(keys)
        table(
            f"25,000 {kind} keys: {each:.1f} bytes a key, {in_order:.1f} sorted",
            [
                ("encode_keys", spread(lambda keys=keys: encode_keys(keys))),  # type: ignore[misc]
                ("decode_keys", spread(lambda blob=blob: decode_keys(blob))),  # type: ignore[misc]
                (
                    "row_bodies",
                    spread(lambda keys=keys: row_bodies(keys, "Contact Key", "cohort_a", value=True)),
                ),  # type: ignore[misc]
            ],
        )


def imports() -> None:
    """Seconds and memory before the first line of work, and megabytes on disk."""
    candidates = {
        name: lambda code=code: run(sys.executable, "-c", code)  # type: ignore[misc]
        for name, code in IMPORTS.items()
        if all(_has(library) for library in ("polars", "duckdb") if library in name)
    }
    show("imports", interleaved(9, **candidates))
    rows = []
    for site in {Path(path) for path in sys.path if path.endswith("site-packages")}:
        for names in (("numpy", "numpy.libs"), ("polars", "_polars_runtime_32"), ("duckdb", "_duckdb")):
            size = sum(
                file.stat().st_size
                for name in names
                for file in (site / name).rglob("*")
                if file.suffix != ".pyc"
            )
            size += sum(file.stat().st_size for file in site.glob(f"{names[-1]}*.so"))
            if size:
                rows.append((names[0], f"{size / 1e6:.0f} MB"))
    table("installed", rows)


def compaction(n: int) -> None:
    """A first sync's batches into chunks, then one per cent more."""
    before, after = diffs.pair(n, n // 200, "uuid")
    state = folder() / "compaction.db"
    state.unlink(missing_ok=True)
    for name, path in (("first", before), ("1 %", after)):
        told = python("diff_child", state, path, "fold")
        table(
            f"compaction, {n:,} members, {name}",
            [("seconds", str(diffs.counts(told)["fold"])), ("peak MB", f"{told.rss:.0f}")],
        )


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None
