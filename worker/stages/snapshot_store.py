"""Where a snapshot's keys come from; its file lies here while runs need it, one copy a machine.

The file holds personal data: mode 0600, removed with its run or after a day.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from config.queue_names import HARD_LIMIT_SECONDS
from models.data_protection.forgotten import Forgotten
from models.direction import Direction
from models.errors import ContractError, TerminalError
from models.membership import snapshots
from models.private_files import make_private_dir, replacing
from models.runs.stage_progress import StageProgress
from models.tables import Snapshot
from models.types import SnapshotKind
from worker.claim import ClaimedRun
from worker.inspection import members
from worker.membership.key_sources import CsvFile, KeyBlobs, KeySource, blobs_of
from worker.membership.without import without
from worker.stages import webhook_snapshot

KEEP_SECONDS = 86_400
SAY_SECONDS = 1.0
# "/request/:id/file" can be used for seven days (Amplitude, Behavioral Cohorts API).
DOWNLOADABLE = timedelta(days=7)


# Kinds that are a file of somebody else's.
_CSV = (SnapshotKind.DOWNLOAD, SnapshotKind.UPLOAD)


def fetch(claimed: ClaimedRun, snapshot: Snapshot) -> KeySource:
    """The snapshot's keys: of a file that is downloaded or unpacked to this machine, or of the database.

    Who is forgotten is not among them: a file that was made before somebody was is made anew.
    """
    if snapshot.kind in _CSV:
        return csv_of(claimed, snapshot)
    if snapshot.kind == SnapshotKind.CLEAR:
        return KeyBlobs(lambda: (), snapshot.property)
    gone = claimed.forgotten()
    if snapshot.kind == SnapshotKind.STATE:
        return _of_state(claimed, gone)
    path = _place(claimed, snapshot, gone)
    if not path.exists():
        webhook_snapshot.write(claimed, snapshot, path, gone)
    return blobs_of(path, snapshot.property)


def csv_of(claimed: ClaimedRun, snapshot: Snapshot) -> CsvFile:
    """The file of a download or an upload."""
    gone, limit = claimed.forgotten(), claimed.ctx.settings.snapshot_max_bytes
    path = _place(claimed, snapshot, gone)
    if not path.exists():
        if not gone:
            _make(claimed, snapshot, path, limit)
        else:
            raw = path.with_suffix(f".csv.{os.getpid()}.raw")
            try:
                _make(claimed, snapshot, raw, limit)
                leave_out(CsvFile(raw, snapshot.property, limit), path, gone)
            finally:
                raw.unlink(missing_ok=True)
    return CsvFile(path, snapshot.property, limit)


def leave_out(source: CsvFile, target: Path, gone: Forgotten) -> None:
    """`target` becomes the cohort file `source` without who is forgotten."""
    with replacing(target) as draft:
        without(
            source.path,
            draft,
            source.column,
            gone.__contains__,
            max_bytes=source.max_bytes,
            workdir=target.parent,
        )


def _place(claimed: ClaimedRun, snapshot: Snapshot, gone: Forgotten) -> Path:
    path = place_of(claimed.ctx.settings.data_dir, snapshot, gone.newest)
    make_private_dir(path.parent)
    return path


def _make(claimed: ClaimedRun, snapshot: Snapshot, path: Path, limit: int) -> None:
    if snapshot.kind == SnapshotKind.UPLOAD:
        _unload(claimed, snapshot, path, limit)
    else:
        _download(claimed, snapshot, path, limit)


def _of_state(claimed: ClaimedRun, gone: Forgotten) -> KeyBlobs:
    """Nothing but this run changes the state, and not before it has planned what follows from these keys."""
    binding = claimed.load().binding

    def blobs() -> Iterator[bytes]:
        with claimed.workdir("state") as workdir:
            for n, blob in members.of_state(claimed.ctx.db, binding, workdir):
                yield gone.without(Direction.ENTER, n, blob)[1]

    return KeyBlobs(blobs, binding.destination.contact_key_property, binding.member_count)


def place_of(data_dir: Path, snapshot: Snapshot, newest: int = 0) -> Path:
    """Where its file lies, without those who were forgotten up to the `newest`.

    By the time too: a database that was restored gives its ids again.
    """
    kind = "csv" if snapshot.kind in _CSV else "keys"
    return data_dir / "snapshots" / f"{_name_of(snapshot)}{newest}.{kind}"


def _name_of(snapshot: Snapshot) -> str:
    return f"{snapshot.id}-{snapshot.requested_at:%Y%m%d%H%M%S%f}-"


def forget(claimed: ClaimedRun, snapshot: Snapshot) -> None:
    """Remove the file that this run alone needed, and what lies about."""
    if snapshot.kind != SnapshotKind.DOWNLOAD:
        for path in (claimed.ctx.settings.data_dir / "snapshots").glob(f"{_name_of(snapshot)}*"):
            path.unlink(missing_ok=True)
    sweep(claimed.ctx.settings.data_dir)


def sweep(data_dir: Path) -> None:
    """Remove what lies about: downloads that nobody has needed for a day, and what a killed process left."""
    now = time.time()
    for path in (data_dir / "snapshots").glob("*"):
        with suppress(OSError):
            if path.stat().st_mtime < now - KEEP_SECONDS:
                path.unlink()
    for left in (data_dir / "work").glob("*"):
        with suppress(OSError):
            if left.stat().st_mtime < now - HARD_LIMIT_SECONDS:
                shutil.rmtree(left)


def _download(claimed: ClaimedRun, snapshot: Snapshot, path: Path, limit: int) -> None:
    if snapshot.request_id is None:
        raise TerminalError("SNAPSHOT_REQUEST_LOST")
    if claimed.now - snapshot.requested_at > DOWNLOADABLE:  # as of a run that was held for long
        raise TerminalError("SNAPSHOT_EXPIRED")
    run = claimed.load()
    with claimed.amplitude(run.binding.project) as amplitude:
        amplitude.download(snapshot.request_id, path, max_bytes=limit, told=_watched(claimed))


def _watched(claimed: ClaimedRun) -> Callable[[int, int], None]:
    """Says once a second how far a download is."""
    said = time.monotonic()

    def told(read: int, size: int) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_SECONDS:
            claimed.tell(StageProgress("downloading", read // 1_000, size // 1_000, "kB"))
            said = time.monotonic()

    return told


def _unload(claimed: ClaimedRun, snapshot: Snapshot, path: Path, limit: int) -> None:
    size = 0
    with claimed.ctx.db.read() as session, replacing(path) as draft, draft.open("wb") as file:
        for piece in snapshots.iter_upload(session, snapshot.id):
            size += len(piece)
            if size > limit:
                raise ContractError("SNAPSHOT_TOO_LARGE", limit=f"{limit:,} bytes")
            file.write(piece)
