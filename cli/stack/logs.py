"""The log of a stack in the background: one file of lines, most of them JSON, cut when it has grown."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from models.private_files import make_private_dir

MOST_BYTES = 20_000_000  # the file before is kept, so twice as much
LOOK_SECONDS = 0.3
PROCESSES = ("stack", "scheduler", "worker", "flower", "monitor")


def path(data_dir: Path) -> Path:
    """Where it is."""
    return data_dir / "log" / "up.log"


def opened(log: Path) -> BinaryIO:
    """To be appended to."""
    make_private_dir(log.parent)
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def rotate(log: Path, most: int = MOST_BYTES) -> None:
    """Begin the file anew if it is too large. Whoever writes appends, so it need not know; a line that is written
    between the copy and the cut is lost.
    """
    with suppress(OSError):
        if log.stat().st_size > most:
            shutil.copyfile(log, before(log))
            os.truncate(log, 0)


def before(log: Path) -> Path:
    """The file before this one."""
    return log.with_name(f"{log.name}.1")


def since(log: Path, place: int, end: int | None = None) -> list[str]:
    """The lines from that byte on; up to `end`."""
    with log.open("rb") as file:
        file.seek(place)
        return file.read(-1 if end is None else end - place).decode(errors="replace").splitlines()


def wanted(line: str, process: str | None, start: datetime | None) -> bool:
    """Whether the line is that process's, and not older. A line without a time or a name is everybody's."""
    told = fields(line)
    if process is not None and told.get("process") != process:
        return False
    at = _instant(told.get("timestamp"))
    return start is None or at is None or at >= start


def fields(line: str) -> dict[str, Any]:
    """What a line holds; nothing for one that is no JSON."""
    with suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
    return {}


def readable(line: str) -> str:
    """The line for a person: time, process, level if it is none of every day, event, and the rest."""
    told = fields(line)
    if "event" not in told:
        return line
    at = _instant(told.pop("timestamp", None))
    process, level, event = (str(told.pop(name, "")) for name in ("process", "level", "event"))
    told.pop("logger", None)
    words = [f"{at:%m-%d %H:%M:%S}" if at else "", f"{process:9}", level.upper() if level != "info" else ""]
    rest = " ".join(f"{name}={value}" for name, value in told.items())
    return " ".join(word for word in (*words, event, rest) if word)


def follow(log: Path, place: int, goes_on: Callable[[], bool]) -> Iterator[str]:
    """Lines from that byte on as they are written, as long as `goes_on`; a file that was cut is read from its start."""
    rest = b""
    while True:
        going = goes_on()  # asked first: what it wrote before its end is still read
        with suppress(FileNotFoundError), log.open("rb") as file:
            if os.fstat(file.fileno()).st_size < place:
                place, rest = 0, b""
            file.seek(place)
            data = file.read()
            place += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        if not going:
            return
        time.sleep(LOOK_SECONDS)


def _instant(text: object) -> datetime | None:
    with suppress(ValueError, TypeError):
        found = datetime.fromisoformat(str(text))
        return found if found.tzinfo else None
    return None
