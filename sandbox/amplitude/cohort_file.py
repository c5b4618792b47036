r"""The cohort file: CSV exactly as recorded, built in pieces so that two million rows stay cheap.

[REC] `"amplitude_id","user_id"\n"356896327775",""\n`: every cell quoted, LF, a trailing LF, a missing user
id is an empty cell, quotes are doubled. [1P-CODE] each string may begin with a TAB. [3P] with properties the
header is bare and amplitude_id appears a second time. [1P-CODE] group cohorts have `group_value`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from isal import isal_zlib

from sandbox.amplitude import uuid_rows
from sandbox.amplitude.people import COMPUTED_PROPERTIES, Person, amplitude_id, properties_of

_ROWS_A_PIECE = 20_000
_GZIP = 31  # window bits that mean "gzip" to zlib


@dataclass(frozen=True)
class Snapshot:
    """Who was in the cohort when it was requested, and what was asked for."""

    plain: Sequence[str]
    special: Sequence[Person]
    group: bool = False
    properties: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.plain) + len(self.special)

    def rows(self, order: str) -> Sequence[str | Person]:
        """Everyone, in the order of the file."""
        everyone: list[str | Person] = [*self.plain, *self.special]
        if order == "shuffled":
            random.Random(len(everyone)).shuffle(everyone)
        return everyone

    def known_properties(self) -> list[str]:
        """Every property somebody here has."""
        names: dict[str, None] = dict.fromkeys(COMPUTED_PROPERTIES) if self.plain else {}
        for person in self.special:
            names.update(dict.fromkeys(properties_of(person)))
        return list(names)


@dataclass(frozen=True)
class Form:
    """The switches that shape the file, frozen when it was requested."""

    tab: bool
    property_header: str
    unknown_property: str
    order: str


def pieces(snapshot: Snapshot, form: Form) -> Iterator[bytes]:
    """The file, header first, in pieces of some thousand lines."""
    tab = "\t" if form.tab else ""
    rows = snapshot.rows(form.order)
    if snapshot.group:
        yield f'"{tab}group_value"\n'.encode()
        for some in _slices(rows):
            yield "".join([f'"{tab}{_cell(_user(p))}"\n' for p in some]).encode()
        return
    if snapshot.properties is None:
        yield f'"{tab}amplitude_id","{tab}user_id"\n'.encode()
        for some in _slices(rows):
            yield (
                uuid_rows.rows(some, tab)
                or "".join(
                    [
                        f'"{tab}{amplitude_id(p)}","{tab}{_cell(p)}"\n'
                        if isinstance(p, str)
                        else f'"{tab}{p.amplitude_id}","{tab}{_cell(p.user_id)}"\n'
                        for p in some
                    ]
                ).encode()
            )
        return
    yield from _with_properties(snapshot, form, tab, rows)


def _with_properties(
    snapshot: Snapshot, form: Form, tab: str, rows: Sequence[str | Person]
) -> Iterator[bytes]:
    names = list(snapshot.properties or snapshot.known_properties())
    if form.unknown_property == "omitted":
        known = {n.removeprefix("gp:") for n in snapshot.known_properties()}
        names = [n for n in names if n.removeprefix("gp:") in known]
    prefix = "gp:" if form.property_header == "gp" else ""
    headers = ["amplitude_id", "user_id", "amplitude_id", *(prefix + n.removeprefix("gp:") for n in names)]
    yield (",".join(f'"{tab}{_cell(h)}"' for h in headers) + "\n").encode()
    wanted = [n.removeprefix("gp:") for n in names]
    for some in _slices(rows):
        lines = []
        for person in some:
            number = amplitude_id(person) if isinstance(person, str) else person.amplitude_id
            have = properties_of(person)
            cells = [str(number), _user(person), str(number), *(_text(have.get(n)) for n in wanted)]
            lines.append(",".join([f'"{tab}{_cell(c)}"' for c in cells]) + "\n")
        yield "".join(lines).encode()


def gzipped(parts: Iterator[bytes]) -> tuple[bytes, int]:
    """The compressed file and its plain size. isal lets go of the interpreter while it works."""
    squeeze = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP)
    out, plain = [], 0
    for part in parts:
        plain += len(part)
        out.append(squeeze.compress(part))
    out.append(squeeze.flush())
    return b"".join(out), plain


def _slices(rows: Sequence[str | Person]) -> Iterator[Sequence[str | Person]]:
    for at in range(0, len(rows), _ROWS_A_PIECE):
        yield rows[at : at + _ROWS_A_PIECE]


def _user(person: str | Person) -> str:
    return person if isinstance(person, str) else person.user_id


def _cell(text: str) -> str:
    return text.replace('"', '""') if '"' in text else text


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
