"""Where a snapshot's file lies while runs need it: one copy a machine, fetched anew wherever it is missing.

The file holds personal data: mode 0600, removed with its run or after a day.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from config.queue import HARD_LIMIT_SECONDS
from models.errors import ContractError, TerminalError
from models.forgotten import Forgotten
from models.membership import snapshots
from models.secrets import make_private_dir
from models.tables import Snapshot
from models.types import SnapshotKind
from worker.claim import ClaimedRun
from worker.inspection import members_file
from worker.membership.without import without
from worker.stages import webhook_snapshot

KEEP_SECONDS = 86_400
# "/request/:id/file" can be used for seven days (Amplitude, Behavioral Cohorts API).
DOWNLOADABLE = timedelta(days=7)


def fetch(hold: ClaimedRun, snapshot: Snapshot) -> Path:
    """The path of the snapshot's file on this machine: downloaded, or made from the database.

    Who is forgotten is not in it: a file that was made before somebody was is made anew.
    """
    gone = hold.forgotten()
    path = place_of(hold.ctx.settings.data_dir, snapshot, gone.newest)
    make_private_dir(path.parent)
    if path.exists():
        return path
    if not gone:
        _make(hold, snapshot, path)
        return path
    raw = path.with_suffix(f".csv.{os.getpid()}.raw")
    try:
        _make(hold, snapshot, raw)
        leave_out(hold, snapshot.property, raw, path, gone)
    finally:
        raw.unlink(missing_ok=True)
    return path


def leave_out(hold: ClaimedRun, column: str, source: Path, target: Path, gone: Forgotten) -> None:
    """`target` becomes the cohort file `source` without who is forgotten."""
    draft = target.with_name(f"{target.name}.{os.getpid()}.part")
    previous = os.umask(0o077)
    try:
        limit = hold.ctx.settings.snapshot_max_bytes
        without(source, draft, column, gone.__contains__, max_bytes=limit, workdir=target.parent)
        draft.replace(target)
    finally:
        os.umask(previous)
        draft.unlink(missing_ok=True)


def _make(hold: ClaimedRun, snapshot: Snapshot, path: Path) -> None:
    limit = hold.ctx.settings.snapshot_max_bytes
    previous = os.umask(0o077)
    try:
        if snapshot.kind == SnapshotKind.UPLOAD:
            _unload(hold, snapshot, path, limit)
        elif snapshot.kind == SnapshotKind.CLEAR:
            members_file.write(path, snapshot.property, ())
        elif snapshot.kind == SnapshotKind.STATE:
            _from_state(hold, path)
        elif snapshot.kind == SnapshotKind.WEBHOOK:
            webhook_snapshot.write(hold, snapshot, path)
        else:
            _download(hold, snapshot, path, limit)
    finally:
        os.umask(previous)


def place_of(data_dir: Path, snapshot: Snapshot, newest: int = 0) -> Path:
    """Where its file lies, without those who were forgotten up to the `newest`.

    By the time too: a database that was restored gives its ids again.
    """
    return data_dir / "snapshots" / f"{_name_of(snapshot)}{newest}.csv"


def _name_of(snapshot: Snapshot) -> str:
    return f"{snapshot.id}-{snapshot.requested_at:%Y%m%d%H%M%S%f}-"


def forget(hold: ClaimedRun, snapshot: Snapshot) -> None:
    """Remove the file that this run alone needed, and what lies about."""
    if snapshot.kind != SnapshotKind.DOWNLOAD:
        for path in (hold.ctx.settings.data_dir / "snapshots").glob(f"{_name_of(snapshot)}*"):
            path.unlink(missing_ok=True)
    sweep(hold.ctx.settings.data_dir)


def sweep(data_dir: Path) -> None:
    """Remove what lies about: downloads that nobody has needed for a day, and what a killed process left."""
    now = time.time()
    for path in (data_dir / "snapshots").glob("*.csv*"):
        with suppress(OSError):
            if path.stat().st_mtime < now - KEEP_SECONDS:
                path.unlink()
    for left in (data_dir / "work").glob("*"):
        with suppress(OSError):
            if left.stat().st_mtime < now - HARD_LIMIT_SECONDS:
                shutil.rmtree(left)


def _download(hold: ClaimedRun, snapshot: Snapshot, path: Path, limit: int) -> None:
    if snapshot.request_id is None:
        raise TerminalError("SNAPSHOT_REQUEST_LOST")
    if hold.now - snapshot.requested_at > DOWNLOADABLE:  # as of a run that was held for long
        raise TerminalError("SNAPSHOT_EXPIRED")
    run = hold.load()
    with hold.amplitude(run.binding.project) as amplitude:
        amplitude.download(snapshot.request_id, path, max_bytes=limit)


def _from_state(hold: ClaimedRun, path: Path) -> None:
    """Nothing but this run changes the state, and not before it has planned what follows from this file."""
    work = hold.ctx.settings.data_dir / "work"
    make_private_dir(work)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    with tempfile.TemporaryDirectory(prefix="state-", dir=work) as directory:
        try:
            members_file.write_state(hold.ctx.db, hold.load().binding, draft, workdir=Path(directory))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _unload(hold: ClaimedRun, snapshot: Snapshot, path: Path, limit: int) -> None:
    draft, size = path.with_name(f"{path.name}.{os.getpid()}.part"), 0
    try:
        with hold.ctx.db.read() as session, draft.open("wb") as file:
            for piece in snapshots.iter_upload(session, snapshot.id):
                size += len(piece)
                if size > limit:
                    raise ContractError("SNAPSHOT_TOO_LARGE", limit=f"{limit:,} bytes")
                file.write(piece)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
