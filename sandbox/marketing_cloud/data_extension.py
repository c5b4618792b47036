"""A data extension: a table with a primary key, and what an upsert does to it.

Built for millions of rows: a row is one entry of a dictionary, from its comparison key to a tuple of the
other columns, and equal tuples are one object. Key equality is the database's, without case and trailing
spaces [INF, a switch]. No vendor's call of the sandbox deletes a row; the door may.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.marketing_cloud.fields import Field
from sandbox.switches import Switches

Row = tuple[Any, ...]
_SEPARATOR = "\x1f"
_SHARED_ROWS = 8192
_KANA = 0x60  # from Hiragana to Katakana


@dataclass
class Retention:
    """As SOAP names it [fixture]; nothing is ever deleted here, a client only has to see it."""

    length: int | None = None
    unit: int | None = None  # 3 days, 4 weeks, 5 months, 6 years
    row_based: bool = False
    reset_on_import: bool = False
    delete_at_end: bool = False
    retain_until: str = ""


@dataclass
class DataExtension:
    """One data extension and its rows."""

    id: str
    key: str
    name: str
    created_at: float
    account_id: int
    description: str = ""
    category_id: int = 2
    shared: bool = False
    sendable_field: str = ""
    retention: Retention = field(default_factory=Retention)
    fields: list[Field] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    originals: dict[str, str] = field(default_factory=dict)
    shared_rows: dict[Row, Row] = field(default_factory=dict)
    max_in_flight: int = 0

    @property
    def key_fields(self) -> list[Field]:
        """The primary key's columns."""
        return [f for f in self.fields if f.primary_key]

    @property
    def value_fields(self) -> list[Field]:
        """The other columns, in the order of a row."""
        return [f for f in self.fields if not f.primary_key]

    def field_named(self, name: str) -> Field | None:
        """A column by name, case aside: what schema operations do [MCDEV]."""
        return next((f for f in self.fields if f.name.lower() == name.lower()), None)

    def comparison_key(self, parts: Sequence[Any], switches: Switches) -> str:
        """What two equal keys have in common."""
        text = _SEPARATOR.join(map(str, parts)) if len(parts) > 1 else str(parts[0])
        if switches.key_matching == "exact":
            return text
        if switches.key_matching == "collation":
            text = collated(text)
        return _SEPARATOR.join(p.rstrip(" ").lower() for p in text.split(_SEPARATOR))

    def put(self, key: str, original: str, row: Row, *, new: bool) -> None:
        """Store a row. The key's spelling stays the one it was inserted with."""
        if len(self.shared_rows) < _SHARED_ROWS:
            row = self.shared_rows.setdefault(row, row)
        else:
            row = self.shared_rows.get(row, row)
        self.rows[key] = row
        if new:
            self.order.append(key)
            if original != key:
                self.originals[key] = original

    def key_values(self, key: str) -> list[str]:
        """The key as it was spelled when the row was inserted."""
        return self.originals.get(key, key).split(_SEPARATOR)

    def document(self, key: str) -> dict[str, Any]:
        """A row with typed values, for the door."""
        found: dict[str, Any] = dict(
            zip((f.name for f in self.key_fields), self.key_values(key), strict=True)
        )
        found.update(zip((f.name for f in self.value_fields), self.rows[key], strict=True))
        return found

    def alter(self, fields: Sequence[Field]) -> None:
        """New columns start null, removed ones lose their values, the rest keep theirs."""
        before = [f.name for f in self.value_fields]
        keys_before = [f.name for f in self.key_fields]
        self.fields = list(fields)
        if self.rows and keys_before != [f.name for f in self.key_fields]:
            raise ValueError("the primary key of a data extension with rows cannot change")
        places = [before.index(f.name) if f.name in before else None for f in self.value_fields]
        changed: dict[Row, Row] = {}
        for key, row in self.rows.items():
            if row not in changed:
                changed[row] = tuple(None if at is None else row[at] for at in places)
            self.rows[key] = changed[row]
        self.shared_rows = {row: row for row in changed.values()} if len(changed) < _SHARED_ROWS else {}

    def clear(self) -> None:
        """No rows any more; the columns stay."""
        self.rows, self.order, self.originals, self.shared_rows = {}, [], {}, {}

    def delete(self, keys: Iterable[str]) -> None:
        """Without these rows; a KeyError if one is not there."""
        for key in keys:
            del self.rows[key]
            self.order.remove(key)
            self.originals.pop(key, None)

    def index_of(self, name: str) -> int | None:
        """Where a value column stands in a row; None for a key column."""
        for at, column in enumerate(self.value_fields):
            if column.name.lower() == name.lower():
                return at
        return None

    def describe(self) -> Mapping[str, Any]:
        """For the door."""
        return {
            "id": self.id,
            "key": self.key,
            "rows": len(self.rows),
            "max_in_flight": self.max_in_flight,
            "fields": [f.describe() for f in self.fields],
        }


def collated(text: str) -> str:
    """What a collation without width and kana leaves of a text [INF]: no character that nobody sees, one form."""
    seen = "".join(
        sign for sign in text if sign == _SEPARATOR or unicodedata.category(sign) not in {"Cc", "Cf"}
    )
    folded = unicodedata.normalize("NFKC", seen).casefold()
    return "".join(chr(ord(sign) - _KANA) if "\u30a1" <= sign <= "\u30f6" else sign for sign in folded)
