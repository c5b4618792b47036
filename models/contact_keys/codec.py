"""How contact keys are stored, and how they are written into a request.

A blob outlives the program that wrote it: push batches and member chunks stay in the database across upgrades.
So the format is this module's own and rests on zlib's format and big-endian numbers alone. Its first byte says which
format it is; a new format gets a new number, and every old one stays readable.

    byte   0       1
    uint32 1       keys
    uint32 5       of them texts
    uint32 9       bytes of the section of kinds, zlib: one byte a key (0 uuid, 1 UUID, 2 text); none if all are 0
    uint32 13      bytes of the section of lengths, zlib: a uint32 a text
           17      16 bytes a uuid, in order; the kinds; the lengths; the texts, UTF-8 end to end, zlib

The order of the keys is kept: a job's results are matched to its rows by position.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import orjson
from isal import isal_zlib

from models.contact_keys.key_array import TEXT, U8, KeyArray

Value: TypeAlias = bool | str | int
FORMAT = 1
_HEADER = struct.Struct("<BIIII")
HEADER_BYTES = _HEADER.size
_UUID = struct.Struct(">QQ")
_LEVEL = 1  # 1,000,000 e-mail addresses: 45 ms and 10.9 MB; zlib's own level 1 takes 293 ms for 11.3 MB


def encode_keys(keys: Sequence[str]) -> bytes:
    """A blob of these keys, in order; `decode_keys` gives them back."""
    return encode(KeyArray.of(keys))


def decode_keys(blob: bytes) -> list[str]:
    """The keys of a blob, in order."""
    return decode(blob).to_list()


def encode(keys: KeyArray) -> bytes:
    """`encode_keys` for those who have the columns already."""
    numbers = np.empty((len(keys) - keys.texts, 2), ">u8")
    if keys.texts:
        plain = keys.kind != TEXT
        numbers[:, 0], numbers[:, 1] = keys.hi[plain], keys.lo[plain]
    else:
        numbers[:, 0], numbers[:, 1] = keys.hi, keys.lo
    kinds = isal_zlib.compress(keys.kind.tobytes(), _LEVEL) if keys.kind.any() else b""
    lengths = isal_zlib.compress(np.diff(keys.ends).astype("<u4").tobytes(), _LEVEL) if keys.texts else b""
    texts = isal_zlib.compress(keys.text.tobytes(), _LEVEL) if keys.texts else b""
    header = _HEADER.pack(FORMAT, len(keys), keys.texts, len(kinds), len(lengths))
    return b"".join((header, numbers.tobytes(), kinds, lengths, texts))


def decode(blob: bytes) -> KeyArray:
    """`decode_keys` for those who go on with the columns; ValueError if this is no such blob, or a damaged one."""
    if len(blob) < _HEADER.size or blob[0] != FORMAT:
        raise ValueError(f"not a key blob of a known format: {bytes(blob[:1])!r}")
    _, n, texts, kind_size, length_size = _HEADER.unpack_from(blob)
    kinds_at = _HEADER.size + 16 * (n - texts)
    lengths_at = kinds_at + kind_size
    texts_at = lengths_at + length_size
    if texts > n or len(blob) < texts_at:
        raise ValueError("a key blob is cut short")
    numbers = np.frombuffer(blob, ">u8", 2 * (n - texts), _HEADER.size).reshape(-1, 2)
    kind = _unzipped(blob, kinds_at, lengths_at) if kind_size else np.zeros(n - texts, np.uint8)
    lengths = _unzipped(blob, lengths_at, texts_at)
    text = _unzipped(blob, texts_at, len(blob))
    if len(kind) != n or len(lengths) != 4 * texts or int(np.count_nonzero(kind == TEXT)) != texts:
        raise ValueError("a key blob is damaged")
    ends = np.zeros(texts + 1, np.int64)
    np.cumsum(lengths.view("<u4"), out=ends[1:])
    if len(text) != ends[-1]:
        raise ValueError("a key blob is damaged")
    if not texts:
        hi, lo = numbers[:, 0].astype(np.uint64), numbers[:, 1].astype(np.uint64)
    else:
        hi, lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        plain = kind != TEXT
        hi[plain], lo[plain] = numbers[:, 0], numbers[:, 1]
    return KeyArray(kind, hi, lo, text, ends)


def has_texts(blob: bytes) -> bool:
    """Whether some key of a blob is no UUID: read from its header alone."""
    return len(blob) < _HEADER.size or blob[0] != FORMAT or _HEADER.unpack_from(blob)[2] > 0


def holds_uuid(blob: bytes, hi: int, lo: int) -> bool:
    """Whether a blob without texts has the UUID of these two words, in either case; nothing is decoded."""
    needle = _UUID.pack(hi, lo)
    stop = _HEADER.size + 16 * int(_HEADER.unpack_from(blob)[1])
    at = blob.find(needle, _HEADER.size, stop)
    while at >= 0 and (at - _HEADER.size) % 16:  # the end of one UUID and the beginning of the next
        at = blob.find(needle, at + 1, stop)
    return at >= 0


def count(blob: bytes) -> int:
    """How many keys the blob has; its first HEADER_BYTES are enough."""
    n: int = _HEADER.unpack_from(blob)[1]
    return n


def without(blob: bytes, gone: Callable[[str], bool]) -> tuple[int, bytes]:
    """(keys, blob) without those that are `gone`, in order; the very blob if there are none."""
    keys = decode(blob)
    kept = np.fromiter((not gone(key) for key in keys), np.bool_, len(keys))
    if kept.all():
        return len(keys), blob
    rows = np.flatnonzero(kept)
    return len(rows), encode(keys.take(rows))


def _unzipped(blob: bytes, start: int, stop: int) -> U8:
    try:
        return np.frombuffer(isal_zlib.decompress(blob[start:stop]) if stop > start else b"", np.uint8)
    except isal_zlib.error as error:  # type: ignore[misc] # the stub has a value where the class is
        raise ValueError("a key blob is damaged") from error


def row_bodies(keys: Sequence[str], key_field: str, field: str, value: Value) -> bytes:
    """The body of one asynchronous upsert: `{"items":[{"Contact Key":"k1","F":true},…]}`."""
    return row_body([(keys, value)], key_field, field)


def row_body(parts: Sequence[tuple[Sequence[str], Value]], key_field: str, field: str) -> bytes:
    """The same of keys with one value and keys with another, in that order."""
    rows = b",".join(_rows(keys, value, key_field, field) for keys, value in parts if keys)
    return b'{"items":[' + rows + b"]}"


def _rows(keys: Sequence[str], value: Value, key_field: str, field: str) -> bytes:
    joined = "".join(keys)
    if len(orjson.dumps(joined)) != len(joined.encode()) + 2:  # JSON spells some key with an escape
        return orjson.dumps([{key_field: key, field: value} for key in keys])[1:-1]
    before = f'{{{_json(key_field)}:"'
    after = f'",{_json(field)}:{_json(value)}}}'
    return (before + f"{after},{before}".join(keys) + after).encode()


def _json(value: Value) -> str:
    return orjson.dumps(value).decode()


def sync_row_body(keys: Sequence[str], value: Value, key_field: str, field: str) -> bytes:
    """The body of one synchronous upsert: `[{"keys":{"Contact Key":"k1"},"values":{"F":"true"}},…]`.

    Booleans as the reference of that call spells them.
    """
    text = str(value).lower() if isinstance(value, bool) else value
    return orjson.dumps([{"keys": {key_field: key}, "values": {field: text}} for key in keys])


def row_overhead(key_field: str, field: str, value: Value) -> int:
    """Bytes that a row takes in that body beside its key's own, the comma included."""
    return len(orjson.dumps({key_field: "", field: value})) + 1
