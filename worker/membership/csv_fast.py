"""The rows of a snapshot by the megabyte: the same cells as `csv_reference`, found by numpy.

A chunk ends at the end of a row. In it every delimiter is found at once; the chunk is regular if each row has the
header's number of cells, each quoted cell begins and ends at a delimiter with nothing but doubled quotes and no line
break inside, and CR stands before LF only. Then, and only then, are its cells what the csv module would read, by
induction from the first row. Anything else raises Irregular, and `csv_reference` reads the file again from the start:
it, not this module, decides what an odd file means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.contact_keys.comparison import has_line_break, is_blank
from models.contact_keys.key_array import I64, U8, Bool, KeyArray
from models.errors import ContractError
from worker.membership.snapshot_file import LINE, SnapshotFile

CHUNK = 4 << 20
_LF, _CR, _TAB, _QUOTE, _COMMA = (ord(sign) for sign in '\n\r\t",')
_TAIL = re.compile(rb"(?:\r?\n)+\r?\Z|\r\Z")
# First bytes, in UTF-8, of the characters that str.isspace() knows.
_SPACES = np.zeros(256, np.bool_)
_SPACES[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 0xC2, 0xE1, 0xE2, 0xE3]] = True


class Irregular(Exception):  # noqa: N818 - a finding about the file, not an error: csv_reference goes on with it
    """The file's quoting or shape needs the exact reader."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The keys of some rows in order, without the blank ones; `longest` in UTF-16 code units."""

    keys: KeyArray
    rows: int
    blank: int
    longest: int


def chunks(file: SnapshotFile, seen: Callable[[bytes], object]) -> Iterator[bytes]:
    """The file after its header, cut at row ends, each chunk ending with LF; `seen` gets every byte of the file."""
    with file.path.open("rb") as source:
        seen(source.read(file.start))
        carry = b""
        while True:
            block = source.read(CHUNK)
            seen(block)
            if not block:
                break
            block = carry + block
            cut = _row_end(block)
            if len(file.columns) > 1 and (tail := _TAIL.search(block, max(cut - 64, 0), cut)):
                cut = tail.start() + (2 if tail[0].startswith(b"\r\n") else 1)  # empty lines may end the file
            if not cut and len(block) > 4 * CHUNK:
                raise Irregular
            carry = block[cut:]
            if cut:
                yield block[:cut]
        if len(file.columns) > 1:
            carry = _TAIL.sub(b"", carry)
        if carry:
            yield carry if carry.endswith(b"\n") else carry + b"\n"


def parse(chunk: bytes, width: int, column: int) -> Cells:
    """The keys of a chunk; `width` is the number of columns."""
    if not chunk.isascii():
        try:
            chunk.decode()
        except UnicodeDecodeError as error:
            raise ContractError("SNAPSHOT_ENCODING") from error
    data = np.frombuffer(chunk, np.uint8)
    marks, doubled = _delimiters(chunk, data, width)
    rows, rest = divmod(len(marks), width)
    if rest or int(np.count_nonzero(data[marks] == _LF)) != rows:
        raise Irregular
    table = marks.reshape(rows, width)
    ends = table[:, -1]
    if not (data[ends] == _LF).all() or int(np.diff(ends, prepend=-1).max(initial=0)) > LINE:
        raise Irregular
    if b"\r" in chunk:
        ends = ends - (data[ends - 1] == _CR)
        if int(np.count_nonzero(data == _CR)) != int(np.count_nonzero(ends != table[:, -1])):
            raise Irregular
    if column:
        starts = table[:, column - 1] + 1
    else:
        starts = np.empty(rows, np.int64)
        starts[:1] = 0
        starts[1:] = table[:-1, -1] + 1
    return _cells(data, starts, ends if column == width - 1 else table[:, column], doubled)


def cells_of(keys: list[str]) -> Cells:
    """The same from strings."""
    kept = [key for key in keys if not is_blank(key)]
    array = KeyArray.of(kept)
    return Cells(array, len(keys), len(keys) - len(kept), int(array.utf16_lengths().max(initial=0)))


def cells_of_array(keys: KeyArray) -> Cells:
    """The same from keys that are columns already, as if each were a cell: one with a line break is none."""
    if keys.texts and _suspect(keys):
        return cells_of(["" if has_line_break(key) else key for key in keys])
    return Cells(keys, len(keys), 0, int(keys.utf16_lengths().max(initial=0)))


def _suspect(keys: KeyArray) -> bool:
    """Whether some text may be blank, or have a line break."""
    starts, text = keys.ends[:-1], keys.text
    if (starts == keys.ends[1:]).any() or _SPACES[text[starts]].any():
        return True
    return bool(((text == _LF) | (text == _CR)).any())


def _row_end(block: bytes) -> int:
    """Where the last whole row ends: after the last LF that an even number of quotes stand before."""
    cut = block.rfind(b"\n") + 1
    if b'"' not in block:
        return cut
    quotes = int(np.count_nonzero(np.frombuffer(block, np.uint8, cut) == _QUOTE))
    while cut and quotes % 2:
        before = block.rfind(b"\n", 0, cut - 1) + 1
        quotes -= block.count(b'"', before, cut)
        cut = before
    return cut


def _delimiters(chunk: bytes, data: U8, width: int) -> tuple[I64, I64 | None]:
    """Commas and line ends outside quotes; and doubled quotes, None without any quote."""
    mask = data == _LF
    if width > 1 or b"," in chunk:
        mask |= data == _COMMA
    if b'"' not in chunk:
        return np.flatnonzero(mask), None
    mask |= data == _QUOTE
    return _unquoted(data, np.flatnonzero(mask))


def _unquoted(data: U8, marks: I64) -> tuple[I64, I64]:
    """The delimiters outside quotes, and the positions of doubled quotes."""
    is_quote = data[marks] == _QUOTE
    quotes = marks[is_quote]
    if len(quotes) % 2:
        raise Irregular
    opens, closes = quotes[0::2], quotes[1::2]
    twice = np.flatnonzero(opens[1:] == closes[:-1] + 1)
    doubled = closes[twice]
    if len(twice):
        opens, closes = np.delete(opens, twice + 1), np.delete(closes, twice)
    before = data[np.maximum(opens - 1, 0)]
    fine = (before == _COMMA) | (before == _LF) | (opens == 0)
    after = data[closes + 1]
    fine &= (
        (after == _COMMA)
        | (after == _LF)
        | ((after == _CR) & (data[np.minimum(closes + 2, len(data) - 1)] == _LF))
    )
    if not fine.all():
        raise Irregular
    inside = (np.cumsum(is_quote, dtype=np.int32) & 1).astype(np.bool_)
    if (data[marks[inside]] == _LF).any():
        raise Irregular  # a row that spans lines is looked at one by one
    return marks[~is_quote & ~inside], doubled


def _cells(data: U8, starts: I64, stops: I64, doubled: I64 | None) -> Cells:
    rows = len(starts)
    if doubled is not None:
        edge = (data[starts] == _QUOTE).astype(np.int64)
        starts, stops = starts + edge, stops - edge
        if len(doubled):
            data, starts, stops = _undouble(data, starts, stops, doubled)
    starts = starts + ((data[starts] == _TAB) & (stops > starts))
    lengths = stops - starts
    blank = _blank(data, starts, lengths)
    count = int(np.count_nonzero(blank))
    if count:
        starts, lengths = starts[~blank], lengths[~blank]
    keys = KeyArray.of_cells(data, starts, lengths)
    return Cells(keys, rows, count, int(keys.utf16_lengths().max(initial=0)))


def _undouble(data: U8, starts: I64, stops: I64, doubled: I64) -> tuple[U8, I64, I64]:
    """Cells with a doubled quote, rewritten behind the end of the data."""
    row = np.searchsorted(stops, doubled)
    row = np.unique(row[(row < len(starts)) & (doubled >= starts[np.minimum(row, len(starts) - 1)])])
    texts = [data[starts[at] : stops[at]].tobytes().replace(b'""', b'"') for at in row.tolist()]
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    starts[row] = len(data) + np.cumsum(sizes) - sizes
    stops[row] = starts[row] + sizes
    return np.concatenate([data, np.frombuffer(b"".join(texts) + b"\n", np.uint8)]), starts, stops


def _blank(data: U8, starts: I64, lengths: I64) -> Bool:
    blank: Bool = lengths == 0
    for row in np.flatnonzero(_SPACES[data[starts]] & ~blank).tolist():
        blank[row] = is_blank(data[starts[row] : starts[row] + lengths[row]].tobytes().decode())
    return blank
