"""A diff takes its keys from a file or from blobs: the same keys are the same diff."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from models.contact_keys.codec import decode_keys, encode_keys
from worker.membership.diff import Diff, StateReader, compare
from worker.membership.key_sources import CsvFile, KeyBlobs, KeySource, blobs_of, write_blobs

UUIDS = st.uuids().map(str)
ODD = st.sampled_from(
    ["", " ", "null", "user_id", "a\nb", "a\rb", "\ta", "a\t", " ", "é", "A@x.org", "a@x.org", "a@x.org "]
)
KEYS = st.lists(
    st.one_of(UUIDS, ODD, st.text(max_size=5).filter(lambda t: "\0" not in t and t.isprintable()))
)


def state_of(keys: list[str]) -> StateReader:
    return StateReader(lambda: iter([encode_keys(keys)]), lambda: iter(()), lambda: iter(()), len(keys))


def diff_of(source: KeySource, state: StateReader, workdir: Path) -> Diff:
    return compare(source, state, workdir=workdir, seed=1)


def cell(key: str) -> str:
    """What a reader of the file makes the key of: a TAB before it is taken away, and a line break makes it none."""
    if "\n" in key or "\r" in key:
        return ""
    return f"\t{key}" if key.startswith("\t") else key


def pushed(found: Diff) -> list[tuple[str, list[str]]]:
    return [(batch.direction, decode_keys(batch.keys)) for batch in found.batches(row_overhead=10)]


@given(KEYS, st.lists(UUIDS, max_size=5), st.integers(0, 3), st.integers(1, 4))
def test_blobs_are_read_as_the_file_with_the_same_rows(
    keys: list[str], known: list[str], blank: int, size: int
) -> None:
    parts = [keys[at : at + size] for at in range(0, len(keys), size)]
    blobs = [encode_keys(part) for part in parts]
    with TemporaryDirectory() as folder:
        work = Path(folder)
        path = work / "c.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = [[cell(key)] for key in keys] + [[""]] * blank
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["user_id"], *rows])
        write_blobs(work / "c.keys", blobs, blank)
        state = state_of(known)
        by_file = diff_of(CsvFile(path, "user_id", 1 << 30), state, work)
        kept = blobs_of(work / "c.keys", "user_id")
        assert kept.expected == len(keys)
        by_blobs = diff_of(kept, state, work)
        assert pushed(by_blobs) == pushed(by_file)
        assert by_blobs.longest_key == by_file.longest_key
        assert by_blobs.odd_samples == by_file.odd_samples
        spans = {"spanned": by_file.counts.spanned, "spanned_rows": by_file.counts.spanned_rows}
        assert replace(by_blobs.counts, **spans) == by_file.counts
        assert by_blobs.digest == kept.digest() == KeyBlobs(lambda: blobs, "user_id", blank=blank).digest()


def test_a_digest_is_made_once_and_tells_contents_apart(tmp_path: Path) -> None:
    reads = 0

    def blobs() -> Iterator[bytes]:
        nonlocal reads
        reads += 1
        yield encode_keys(["a", "b"])

    found = KeyBlobs(blobs, "user_id")
    assert found.digest() == found.digest()
    assert reads == 1
    assert found.digest() != KeyBlobs(blobs, "user_id", blank=1).digest()
    assert found.digest() != KeyBlobs(lambda: [encode_keys(["a", "c"])], "user_id").digest()
    assert KeyBlobs(lambda: (), "user_id").digest() == KeyBlobs(lambda: (), "user_id").digest()
    path = tmp_path / "c.csv"
    path.write_bytes(b"user_id\r\na\r\n")
    file = CsvFile(path, "user_id", 100)
    first = file.digest()
    path.unlink()
    assert file.digest() == first
