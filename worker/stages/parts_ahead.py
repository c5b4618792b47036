"""Parts of a list or a state that are made to count: several are stored before the commit that does it.

On SQLite everybody waits for a writer, so none of these transactions stores more than one part. Only where somebody is
forgotten again and again meanwhile the last attempt stores all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from models.data_protection import forgotten
from models.data_protection.forgotten import Forgotten
from models.direction import Direction
from models.errors import TransientError
from models.membership import generations
from models.membership.generations import Ahead, Owner
from models.tables import SyncRun
from worker.claim import ClaimedRun
from worker.membership.part_file import PartFile

TRIES = 3

T = TypeVar("T")
Count = Callable[[Session, SyncRun, Ahead, Iterator[tuple[int, bytes]]], T | None]
"""Lets what was stored ahead count, with the rest of the parts, in the given transaction; none if it can't any more."""


def counted(
    claimed: ClaimedRun,
    owner: Owner,
    parts: PartFile,
    direction: Direction,
    count: Count[T],
    *,
    known: Forgotten | None,
    workdir: Path,
) -> T:
    """Store the parts, and let them count; what `count` says.

    They are without those `known` to be forgotten, as in batches of that direction; with none as they were read.
    """
    keyring = claimed.ctx.db.keyring
    for last in (*[False] * (TRIES - 1), True):
        gone = claimed.forgotten()
        if gone != known:
            parts, known = (without(parts, gone, direction, workdir) if gone else parts), gone
        stop = 0 if last or len(parts) == 1 else len(parts)
        ahead = generations.store_ahead(claimed, owner, parts.between(0, stop), known, keyring)
        if ahead is None:
            continue
        with claimed.transaction() as (session, run):
            gone = forgotten.enforced(session, keyring)
            if ahead.parts and gone != known:
                continue
            new = gone.besides(known)
            rest = (new.without(direction, *part) for part in parts.between(ahead.parts, len(parts)))
            done = count(session, run, ahead, rest)
        if done is not None:
            return done
    raise TransientError("INTERNAL", kind="members that somebody else changes all the time")


def without(parts: PartFile, gone: Forgotten, direction: Direction, workdir: Path) -> PartFile:
    """The parts without those who are gone, and without parts of nobody."""
    kept = (gone.without(direction, *part) for part in parts)
    return PartFile.of((part for part in kept if part[0]), workdir)
