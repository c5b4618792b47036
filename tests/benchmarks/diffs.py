"""A snapshot against the state, beside GNU sort and comm on the key columns of the same two files.

comm decides less (no folding of case, no duplicates, no blank keys, no state to keep) and its input stays sorted
text; it is here because it is everywhere, exact, bounded in memory and hard to beat in a script.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.measure import Run, folder, interleaved, python, run, show

# Both key columns, sorted in 600 MB at most, then the lines that only one of them has.
COMM = """
export LC_ALL=C
for name in "$1" "$2"; do
  cut -d, -f1 "$name" | tail -n +2 | sort -S 600M -T "$3" -o "$3/$(basename "$name").sorted"
done
comm -3 "$3/$(basename "$1").sorted" "$3/$(basename "$2").sorted" | wc -l
"""
SORT = """
export LC_ALL=C
cut -d, -f1 "$1" | tail -n +2 | sort -S 600M -T "$3" -o "$3/$(basename "$1").sorted"
comm -3 /dev/null "$3/$(basename "$1").sorted" | wc -l
"""
# The same question answered by coreutils alone, without a clock: lower case, no blanks, no duplicates.
TRUTH = """
export LC_ALL=C
for name in "$1" "$2"; do
  cut -d, -f1 "$name" | tail -n +2 | tr A-Z a-z | grep . | sort -u -S 600M -T "$3" -o "$3/$(basename "$name").folded"
done
comm -13 "$3/$(basename "$1").folded" "$3/$(basename "$2").folded" > "$3/entered"
comm -23 "$3/$(basename "$1").folded" "$3/$(basename "$2").folded" > "$3/exited"
"""


def churn(n: int, times: int, kind: str = "uuid") -> None:
    """One per cent: half of it in, half of it out."""
    here = folder()
    before, after = pair(n, n // 200, kind)
    state = state_of(before, n)
    found = interleaved(
        times,
        [before, after, state],
        comm=lambda: run("bash", "-c", COMM, "comm", before, after, here),
        diff=lambda: python("diff_child", state, after),
    )
    show(
        f"1 % churn, {n:,} members, {kind} keys, state in SQLite ({size(state, n):.1f} bytes a member)",
        found,
        "comm",
    )
    print("  " + found["diff"][-1].out)
    verify(before, after, state)


def kinds(n: int, times: int) -> None:
    """The same with every other kind of key."""
    for kind in data.KINDS:
        if kind not in {"uuid", "email"}:
            churn(n, times, kind)


def first(n: int, times: int) -> None:
    """Everybody enters."""
    here = folder()
    before, after = pair(n, n // 200, "uuid")
    empty = here / "empty.db"
    found = interleaved(
        times,
        [before, after],
        comm=lambda: run("bash", "-c", COMM, "comm", before, after, here),
        sort_one_file=lambda: run("bash", "-c", SORT, "sort", after, "-", here),
        diff=lambda: fresh(empty, after),
    )
    show(f"first sync, {n:,} members", found, "comm")
    print("  " + found["diff"][-1].out)


def shapes(n: int, times: int) -> None:
    """Memory, whatever share of the cohort changes."""
    here = folder()
    before, _ = pair(n, n // 200, "uuid")
    state = state_of(before, n)
    files = {"0 % churn": before}
    for name, share in (("50 % churn", 2), ("100 % churn", 1)):
        files[name] = made(here / f"uuid-{n}-shift-{share}.csv", n // share, n // share + n, 2, "uuid")
    files["everybody leaves"] = here / "header.csv"
    files["everybody leaves"].write_text("user_id,amplitude_id,email\n")
    files["one key in every row"] = same(n)
    for name, path in files.items():
        found = interleaved(
            times,
            [before, path, state],
            comm=lambda path=path: run("bash", "-c", COMM, "comm", before, path, here),  # type: ignore[misc]
            diff=lambda path=path: python("diff_child", state, path),  # type: ignore[misc]
        )
        show(f"{name}, {n:,} rows", found, "comm")
        print("  " + found["diff"][-1].out)


def pair(n: int, changed: int, kind: str) -> tuple[Path, Path]:
    """The file before and the file after."""
    here = folder()
    return (
        made(here / f"{kind}-{n}-before.csv", 0, n, 1, kind),
        made(here / f"{kind}-{n}-after.csv", changed, n + changed, 2, kind),
    )


def made(path: Path, first_serial: int, last: int, order: int, kind: str) -> Path:
    """Generated unless it is there."""
    if not path.exists():
        half = path.with_suffix(".part")
        data.write(half, first_serial, last, order, kind=kind)
        half.rename(path)
    return path


def same(n: int) -> Path:
    """One member, n times."""
    path = folder() / f"same-{n}.csv"
    if not path.exists():
        row = b"550e8400-e29b-41d4-a716-446655440000,123456789012,somebody@mail.example\n"
        with path.open("wb") as target:
            target.write(b"user_id,amplitude_id,email\n")
            for _ in range(n // 1000):
                target.write(row * 1000)
    return path


def state_of(snapshot: Path, n: int) -> Path:
    """The state after a first sync of this file and its compaction, by the product itself."""
    path = snapshot.with_suffix(".db")
    if not path.exists():
        half = path.with_suffix(".making")
        half.unlink(missing_ok=True)
        told = python("diff_child", half, snapshot, "fold")
        half.rename(path)
        print(f"state of {n:,}: {told.out}; peak {told.rss:.0f} MB, compaction included")
    return path


def fresh(state: Path, snapshot: Path) -> Run:
    """A diff against nothing."""
    for path in (state, Path(f"{state}-wal"), Path(f"{state}-shm")):
        path.unlink(missing_ok=True)
    return python("diff_child", state, snapshot)


def size(state: Path, n: int) -> float:
    """Bytes a member."""
    from tests.benchmarks.diff_child import opened

    base = opened(state)
    total: int = base.execute("select sum(length(keys)) from member_chunk").fetchone()[0]
    base.close()
    return total / n


def verify(before: Path, after: Path, state: Path) -> None:
    """What the last diff planned is what coreutils find."""
    from models.contact_keys.codec import decode_keys
    from tests.benchmarks.diff_child import opened

    here = folder()
    run("bash", "-c", TRUTH, "truth", before, after, here)
    base = opened(state)
    for direction, name in (("enter", "entered"), ("exit", "exited")):
        planned = sorted(
            key.lower()
            for (blob,) in base.execute("select keys from push_batch where direction = ?", (direction,))
            for key in decode_keys(blob)
        )
        if planned != (here / name).read_text().split():
            raise SystemExit(f"the diff's {name} members are not those that comm finds")
    base.close()
    print("  entered and exited members are exactly those that sort -u and comm find after tr A-Z a-z")


def counts(told: Run) -> dict[str, float]:
    """What a child said."""
    answer: dict[str, float] = json.loads(told.out)
    return answer
