"""Cohort exports of any size from a seed: what the benchmarks and nothing else reads.

A row is `user_id,amplitude_id,email`, about 82 bytes. Of every 10,000 rows 100 have the key in upper case, 10
are written twice (the second time in the other case), one has no key and 100 have a quoted amplitude_id. The
order is a permutation that differs between the two files of a pair. `churn` of the members is replaced: half of
it leaves, half of it enters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.contact_keys import uuids

U64 = npt.NDArray[np.uint64]
BLOCK = 1 << 18
KINDS = ("uuid", "email", "salesforce", "decimal", "auth0")
_PRIMES = {1: 7368787, 2: 15485863}


def splitmix(number: U64, salt: int) -> U64:
    """A 64-bit random function of a serial number."""
    x = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 0xD1B54A32D192ED03 % 2**64)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def write(path: Path, first: int, last: int, order: int, *, kind: str = "uuid", quoted: bool = False) -> None:
    """The members of serial first up to last, permuted by `order` (1 or 2); `kind` is one of KINDS."""
    n = last - first
    with path.open("wb") as target:
        quote = b'"' if quoted else b""
        target.write(
            b",".join(quote + name + quote for name in (b"user_id", b"amplitude_id", b"email")) + b"\n"
        )
        for start in range(0, n, BLOCK):
            index = np.arange(start, min(start + BLOCK, n), dtype=np.uint64)
            serial = (index * np.uint64(_PRIMES[order])) % np.uint64(n) + np.uint64(first)
            target.write(_rows(serial, kind, quoted=quoted))


def keys(first: int, last: int, kind: str = "uuid") -> npt.NDArray[np.uint8]:
    """The key cells of these members, one a row, padded with NUL at the left."""
    return _key(np.arange(first, last, dtype=np.uint64), kind)


def _rows(serial: U64, kind: str, *, quoted: bool) -> bytes:
    dice = splitmix(serial, 3) % np.uint64(10_000)
    twice = np.flatnonzero((dice >= 200) & (dice < 210))
    source = np.concatenate([np.arange(len(serial)), twice])
    again = np.concatenate([np.zeros(len(serial), bool), np.ones(len(twice), bool)])
    serial, dice = serial[source], dice[source]
    key = _key(serial, kind)
    letters = key >= ord("a")
    key[again[:, None] & letters] -= 32
    key[dice == 300] = 0
    amplitude = _digits(splitmix(serial, 4) % np.uint64(10**12), 12, pad=ord("0"))
    mail = _digits(serial, 9, pad=0)
    n = len(serial)
    out = np.zeros((n, key.shape[1] + 6 + 14 + 9 + 32), np.uint8)
    at = 0
    for cell, edge in ((key, quoted), (amplitude, dice < 100), (mail, False)):
        marks = np.full(n, ord('"') if edge is True else 0, np.uint8)
        if isinstance(edge, np.ndarray):
            marks[edge | quoted] = ord('"')
        elif quoted:
            marks[:] = ord('"')
        out[:, at] = marks
        out[:, at + 1 : at + 1 + cell.shape[1]] = cell
        at += 1 + cell.shape[1]
        if cell is mail:
            tail = np.frombuffer(b".somebody@mail.example", np.uint8)
            out[:, at : at + len(tail)] = tail
            at += len(tail)
        out[:, at] = marks
        out[:, at + 1] = ord("\n") if cell is mail else ord(",")
        at += 2
    flat = out[:, :at].reshape(-1)
    return flat[flat != 0].tobytes()


def _key(serial: U64, kind: str) -> npt.NDArray[np.uint8]:
    upper = splitmix(serial, 5) % np.uint64(100) == 0
    if kind == "uuid":
        hi = splitmix(serial, 1) & ~np.uint64(0xF000) | np.uint64(0x4000)
        lo = splitmix(serial, 2) & ~np.uint64(3 << 62) | np.uint64(1 << 63)
        return uuids.spell(upper, hi, lo)
    if kind == "decimal":
        return _digits(splitmix(serial, 1) % np.uint64(9 * 10**9) + np.uint64(10**9), 10, pad=0)
    if kind == "salesforce":  # 003, and 15 of 36 signs
        return _beside("003", _signs(serial, 15, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    if kind == "auth0":
        return _beside("auth0|", _signs(serial, 24, "0123456789abcdef"))
    # An address with 40 random bits in its name: sorted ones share few letters, unlike serial numbers.
    out = np.zeros((len(serial), 32), np.uint8)
    bits = splitmix(serial, 1)
    for column in range(8):
        out[:, column] = ord("a") + ((bits >> np.uint64(5 * column)) % np.uint64(26)).astype(np.uint8)
    out[:, 8:17] = _digits(serial, 9, pad=0)
    domains = np.array(
        [list(f"@mail{domain}.example".ljust(15, "\0").encode()) for domain in range(40)], np.uint8
    )
    out[:, 17:32] = domains[(splitmix(serial, 6) % np.uint64(40)).astype(np.intp)]
    out[upper[:, None] & (out >= ord("a"))] -= 32
    return out


def _signs(serial: U64, width: int, alphabet: str) -> npt.NDArray[np.uint8]:
    """So many random signs for each."""
    signs = np.frombuffer(alphabet.encode(), np.uint8)
    out = np.empty((len(serial), width), np.uint8)
    for column in range(width):
        if column % 8 == 0:
            bits = splitmix(serial, 10 + column)
        out[:, column] = signs[(bits >> np.uint64(8 * (column % 8)) & np.uint64(255)) % len(signs)]
    return out


def _beside(prefix: str, cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    head = np.frombuffer(prefix.encode(), np.uint8)
    return np.concatenate([np.broadcast_to(head, (len(cells), len(head))), cells], axis=1)


def _digits(number: U64, width: int, *, pad: int) -> npt.NDArray[np.uint8]:
    out = np.empty((len(number), width), np.uint8)
    rest = number.copy()
    for column in range(width - 1, -1, -1):
        out[:, column] = np.where(
            (rest > 0) | (column == width - 1), rest % np.uint64(10) + np.uint64(48), pad
        )
        rest //= np.uint64(10)
    return out
