"""A snapshot's file before its rows are read: what it is, and where the mapped property stands in it.

The file is Amplitude's answer or somebody's export. It may be gzip or plain, begin with a byte-order mark, end
its lines with CR LF, name a column twice, and carry one TAB before every cell. Whatever is not such a file is
refused here or in `csv_reference`/`csv_fast` with one of the SNAPSHOT_* errors, before anything is planned.

Nothing here may keep a file in memory, or put a cell's text into an error: a cell is somebody's contact key.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isal import isal_zlib

from models.errors import ContractError

_BLOCK = 1 << 20
_HEAD = 1 << 20
"""A header line is looked for in so many bytes."""

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_NOT_TEXT = (b"PK\x03\x04", b"%PDF", b"PAR1")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = {";": "Semicolons", "\t": "TABs", "|": "Vertical bars"}
_LINE_END = re.compile(rb"\r\n|\n|\r")
_NAMED = 12  # columns that an error lists
# A column's name, and no contact key: letters alone, and a word that columns are named by.
_NAME = re.compile(r"(?:gp:)?[A-Za-z]+(?:[ _-][A-Za-z]+){0,4}")
_NAME_WORD = re.compile(
    r"(?:^|[ :_-])(?:id|uuid|guid|key|name|e-?mail|mail|phone|mobile|user|customer|contact|subscriber|member|person"
    r"|account|device|amplitude|country|city|region|language|platform|version|date|time|value|property)s?(?:$|[ _-])",
    re.IGNORECASE,
)

LINE = 1 << 24
"""A line longer than this, in characters, is not a row of a cohort."""

# Of 131,072 by default: a long cell in a column that nobody mapped is no reason to refuse.
csv.field_size_limit(LINE)


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A plain (decompressed) file: its first row's offset, and the column of the keys, asked for as `wanted`."""

    path: Path
    size: int
    start: int
    columns: tuple[str, ...]
    column: int
    wanted: str


def inspect(path: Path, column: str, *, max_bytes: int, workdir: Path | None = None) -> SnapshotFile:
    """Decompress if need be (into `workdir`, or beside the file), read the header, find the column.

    Rows are not read here: they are checked as they are, by whoever reads them.
    """
    if not path.is_file():  # to open a pipe waits for whoever writes into it, and a device may have no end
        raise ContractError("SNAPSHOT_NOT_CSV", "It is a pipe or a device, not a regular file.")
    with path.open("rb") as source:
        zipped = source.read(2) == _GZIP
    if not zipped and path.stat().st_size > max_bytes:
        raise _too_large(max_bytes)
    plain = path
    if zipped:
        handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".csv", dir=workdir or path.parent)
        plain = Path(name)
    try:
        if zipped:
            with os.fdopen(handle, "wb") as target:
                for block in _blocks(path, max_bytes):
                    target.write(block)
        start, columns = _header(plain)
        return SnapshotFile(
            plain, plain.stat().st_size, start, columns, _find(plain, columns, column), column
        )
    except BaseException:
        if zipped:
            plain.unlink(missing_ok=True)
        raise


def digest_of(path: Path, column: str, *, max_bytes: int = 1 << 62) -> str:
    """The digest that `inspect` gives and a diff keeps: of the decompressed bytes and the column's name."""
    digest = hashlib.sha256()
    for block in _blocks(path, max_bytes):
        digest.update(block)
    digest.update(b"\0" + column.encode())
    return digest.hexdigest()


def _blocks(path: Path, max_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as source:
        head = source.read(2)
        source.seek(0)
        if head != _GZIP:
            while block := source.read(_BLOCK):
                yield block
            return
        total = 0
        for block in _unzip(iter(lambda: source.read(_BLOCK), b"")):
            total += len(block)
            if total > max_bytes:
                raise _too_large(max_bytes)
            yield block


def _unzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Every member of a gzip stream, in bounded pieces; a missing end is an error, unlike for most tools."""
    member = isal_zlib.decompressobj(31)
    data = b""
    try:
        while True:
            if member.eof:
                data = (member.unused_data + data).lstrip(b"\0")  # padding after a member is allowed
                if not data and not (data := next(blocks, b"").lstrip(b"\0")):
                    return
                if not data.startswith(_GZIP[: len(data)]):
                    raise _damaged()
                member = isal_zlib.decompressobj(31)
            elif not data and not (data := next(blocks, b"")):
                raise ContractError("SNAPSHOT_TRUNCATED", "Its gzip stream has no end.")
            if piece := member.decompress(data, _BLOCK):
                yield piece
            data = member.unconsumed_tail
    except isal_zlib.error as error:  # type: ignore[misc] # the stub has a value where the class is
        raise _damaged() from error


def _damaged() -> ContractError:
    return ContractError("SNAPSHOT_NOT_CSV", "Its gzip stream is damaged.")


def _header(path: Path) -> tuple[int, tuple[str, ...]]:
    with path.open("rb") as source:
        head = source.read(_HEAD)
    if head.startswith(_UTF16):
        raise ContractError("SNAPSHOT_ENCODING", "It is UTF-16.")
    if head.startswith(_NOT_TEXT):
        raise ContractError("SNAPSHOT_NOT_CSV", "It is a binary file.")
    start = len(_BOM) if head.startswith(_BOM) else 0
    start += len(head) - start - len(head[start:].lstrip(b"\r\n"))
    if not head[start:].strip():
        raise ContractError("SNAPSHOT_EMPTY")
    line, rest = _first_record(head, start)
    if b"\0" in line:
        raise ContractError("SNAPSHOT_ENCODING", "It looks like UTF-16.")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ContractError("SNAPSHOT_ENCODING") from error
    return rest, tuple(cell.removeprefix("\t") for cell in _header_cells(text))


def _header_cells(text: str) -> list[str]:
    """The names. A stray quote in the header would swallow rows, so no line of it may look like one."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:  # a cell above csv.field_size_limit()
        raise ContractError(
            "SNAPSHOT_NOT_CSV", "A cell of its header is longer than a name can be."
        ) from None
    if len(rows) != 1 or any("," in line for cell in rows[0] for line in cell.splitlines()[1:]):
        raise ContractError("SNAPSHOT_NOT_CSV", "A quote in its header has no end in that line.")
    return rows[0]


def _first_record(head: bytes, start: int) -> tuple[bytes, int]:
    quotes, counted = 0, start
    for match in _LINE_END.finditer(head, start):
        quotes += head.count(b'"', counted, match.start())
        counted = match.start()
        if quotes % 2 == 0:
            return head[start : match.start()], match.end()
    if len(head) == _HEAD:
        raise ContractError("SNAPSHOT_NOT_CSV", "Its first line is longer than a header can be.")
    if head.count(b'"', start) % 2:
        raise ContractError("SNAPSHOT_TRUNCATED", "Its header has no end.")
    return head[start:], len(head)


def _find(path: Path, columns: tuple[str, ...], wanted: str) -> int:
    """The first column of that name.

    Amplitude's own identifiers stand first and are filled in every row; a later column of the same name is a
    requested property, which may be empty for some. So the first one wins, and rows never mix the two.
    """
    bare = wanted.removeprefix("gp:")
    for name in (wanted, bare if bare != wanted else f"gp:{wanted}"):
        if name in columns:
            return columns.index(name)
    with path.open("rb") as source:
        first = source.read(64).removeprefix(_BOM).lstrip()[:1]
    if first in (b"<", b"{", b"["):
        raise ContractError(
            "SNAPSHOT_NOT_CSV", "It looks like HTML." if first == b"<" else "It looks like JSON."
        )
    if separated := _separator(columns, {wanted, bare, f"gp:{bare}"}):
        raise ContractError(
            "SNAPSHOT_NOT_CSV", f"{separated}; a cohort file has commas between its cells.", column=wanted
        )
    raise ContractError("SNAPSHOT_COLUMN_MISSING", column=wanted, columns=_listed(columns))


def _listed(columns: tuple[str, ...]) -> str:
    """The columns by name; those whose names may be cells of a file without a header are only counted."""
    names = [repr(name) for name in columns if _NAME.fullmatch(name) and _NAME_WORD.search(name)][:_NAMED]
    rest = len(columns) - len(names)
    if rest:
        names.append(f"{rest} {'more' if names else 'other'} column{'s' if rest > 1 else ''}")
    return ", ".join(names)


def _separator(columns: tuple[str, ...], wanted: set[str]) -> str:
    """What stands between the cells in place of commas, as a sentence; empty if nothing does."""
    line = ",".join(columns)
    for sign, name in _SEPARATORS.items():
        cells = {cell.strip(" \t\"'") for cell in line.split(sign)}
        if sign in line and (cells & wanted or len(columns) == 1):
            return f"{name} stand between its cells"
    return ""


def _too_large(max_bytes: int) -> ContractError:
    return ContractError("SNAPSHOT_TOO_LARGE", limit=f"{max_bytes:,} bytes")
