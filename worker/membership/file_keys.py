"""The keys of a cohort file as blobs, for whoever keeps them: a download that becomes a list's base."""

from __future__ import annotations

from collections.abc import Iterator

from models.contact_keys.codec import encode
from worker.membership import csv_fast, csv_reference
from worker.membership.snapshot_file import SnapshotFile


def key_blobs(file: SnapshotFile) -> Iterator[bytes]:
    """Every key of the file, without blank ones; one may come twice."""
    width, column = len(file.columns), file.column
    try:
        for chunk in csv_fast.chunks(file, len):
            yield encode(csv_fast.parse(chunk, width, column).keys)
    except csv_fast.Irregular:  # from the beginning: what came already comes again
        for keys in csv_reference.read(file):
            yield encode(csv_fast.cells_of(keys).keys)
