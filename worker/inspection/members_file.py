"""Members that the database knows, as the cohort file that a diff reads: the state, or a webhook's list.

Sorted by comparison key as `compact` gives them, so an unchanged membership is an unchanged file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from models.contact_keys.codec import decode
from models.contact_keys.comparison import has_line_break
from models.database import Database, one_state
from models.membership import state
from models.tables import CohortBinding
from worker.membership.compaction import compact

_CR_LF = "\r\n"


def write(path: Path, column: str, blobs: Iterable[bytes], blank: int = 0) -> None:
    """One key a row under `column`, and so many empty rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=_CR_LF).writerow([column])
        for blob in blobs:
            _rows(file, blob)
        file.write(f'""{_CR_LF}' * max(blank, 0))


def write_state(db: Database, binding: CohortBinding, path: Path, *, workdir: Path) -> None:
    """The binding's members as Marketing Cloud acknowledged them."""
    with db.read() as session:
        one_state(session)
        parts = compact(
            state.iter_chunks(session, binding.id), state.iter_deltas(session, binding.id), workdir=workdir
        )
        write(path, binding.destination.contact_key_property, (blob for _, blob in parts))


def _rows(file: TextIO, blob: bytes) -> None:
    keys = decode(blob)
    if not keys.texts:  # UUIDs need no quotes
        file.write(_CR_LF.join([*keys, ""]))
        return
    csv.writer(file, lineterminator=_CR_LF).writerows((_cell(key),) for key in keys)


def _cell(key: str) -> str:
    """What a reader makes the key of: it takes one TAB away from the front. One with a line break is none: blank."""
    if has_line_break(key):
        return ""
    return f"\t{key}" if key.startswith("\t") else key
