"""Where the embedded queue listens: a path that every process of a data directory finds by itself.

Of the standard library alone: a probe asks for it too (`cli/health.py`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

# sun_path holds 108 bytes on Linux and 104 on macOS, the ending NUL included (unix(7)).
SOCKET_PATH_MAX = 100


def embedded_socket(data_dir: Path) -> Path:
    """The embedded server's socket: in the data directory if its path is short enough for one.

    Else in a directory of ours for such sockets, which whoever starts the server makes. One that is there already and
    isn't ours alone is passed over: whose server listens in it is not known.
    """
    inside = data_dir / "valkey.sock"
    digest = hashlib.blake2b(str(data_dir).encode(), digest_size=8).hexdigest()
    # /tmp first: it is the same place for a login shell and for cron, whatever their variables.
    shared = ("/tmp", tempfile.gettempdir())  # noqa: S108 - a directory of mode 0700 in it
    rooms = [Path(folder) / f"cohort-sync-{os.geteuid()}" for folder in shared if Path(folder).is_dir()]
    places = [inside, *(room / f"{digest}.sock" for room in rooms if ours_or_absent(room))]
    return next((path for path in places if len(os.fsencode(path)) <= SOCKET_PATH_MAX), inside)


def ours_or_absent(directory: Path) -> bool:
    """Whether the directory is ours alone, or not there yet; a link to one is neither."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
