"""A full disk under its name in the catalogue, with the place and what is free there."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from models.errors import TransientError

# No space, a user's quota, a limit to one file's size.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_full(error: BaseException, directory: Path) -> TransientError | None:
    """DISK_FULL if that is what the error says; `directory` is where we write when the error names no file."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    path = Path(error.filename).parent if isinstance(error.filename, str) else directory
    try:
        free = f"{shutil.disk_usage(path).free:,}"
    except OSError:
        free = "an unknown number of"
    return TransientError("DISK_FULL", path=str(path), reason=error.strerror or "no space", free=free)
