"""Fields of a data extension and what their types accept.

The server is a database: a value that does not fit is the row's own error, never the request's. Wordings
are recorded where a record exists (tags), otherwise in the same style [INF].
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_TRUE, _FALSE = {"true", "1", "yes", "y"}, {"false", "0", "no", "n"}
_INTEGER = re.compile(r"[+-]?\d{1,10}\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
_INT_MAX = 2**31 - 1
_DEFAULT_LENGTHS = {"Text": 50, "EmailAddress": 254, "Phone": 50, "Locale": 5}  # [OFF] and fixtures
TYPES = ("Text", "Number", "Date", "Boolean", "EmailAddress", "Phone", "Decimal", "Locale")


class BadValueError(Exception):
    """A value its column cannot hold: the message and code of the row's error."""

    def __init__(self, name: str, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.detail: dict[str, Any] = {"errorMessage": message, "name": name.lower(), "errorCode": code}


@dataclass
class Field:
    """One column. `length` is absent for Number, Date and Boolean [fixtures]."""

    name: str
    type: str = "Text"
    length: int | None = None
    scale: int | None = None
    required: bool = False
    primary_key: bool = False
    default: str = ""
    ordinal: int = 0
    object_id: str = ""
    hidden: bool = False
    read_only: bool = False

    def convert(self, value: Any, *, strict_boolean: bool) -> Any:
        """The stored value; None is null."""
        if value is None or (value == "" and self.type != "Text"):
            if self.required or self.primary_key:
                # "Column [contactkey] does not allow null value.", 70001 [SEG fixture]
                raise BadValueError(
                    self.name, f"Column [{self.name.lower()}] does not allow null value.", 70001
                )
            return None
        if self.type == "Boolean":
            return self._boolean(value, strict=strict_boolean)
        if self.type == "Number":
            return self._number(value)
        if self.type == "Decimal":
            return self._decimal(value)
        if self.type == "Date":
            return self._date(value)
        return self._text(value)

    def _mismatch(self, value: Any) -> BadValueError:
        return BadValueError(
            self.name,
            f"The value [{value!s:.50}] for column [{self.name}] is not a valid {self.type}.",
            70002,
        )

    def _text(self, value: Any) -> str:
        if isinstance(value, list | dict):
            raise self._mismatch(value)
        text = value if isinstance(value, str) else str(value)
        if self.length is not None and len(text) > self.length:
            # The documented wording of the synchronous call [BLOG], used for both.
            message = f"{self.name}: The value for column [{self.name}] exceeds the column's maximum length."
            raise BadValueError(self.name, message, 10000)
        if self.type == "EmailAddress" and not _EMAIL.match(text):
            raise self._mismatch(value)
        return text

    def _boolean(self, value: Any, *, strict: bool) -> bool:
        if isinstance(value, bool):
            return value
        text = str(value)
        if strict and text not in {"true", "false"}:
            raise self._mismatch(value)
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise self._mismatch(value)

    def _number(self, value: Any) -> int:
        if isinstance(value, bool):
            return int(value)
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        if not _INTEGER.match(text) or abs(int(text)) > _INT_MAX:
            raise self._mismatch(value)
        return int(text)

    def _decimal(self, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._mismatch(value) from None
        if not math.isfinite(number):
            raise self._mismatch(value)
        return round(number, self.scale or 0)

    def _date(self, value: Any) -> str:
        text = str(value)
        for parse in (datetime.fromisoformat, _us_date):
            try:
                return parse(text).replace(tzinfo=None).isoformat(timespec="seconds")
            except ValueError:
                continue
        raise self._mismatch(value)

    def describe(self) -> dict[str, Any]:
        """For the door."""
        return {
            "name": self.name,
            "type": self.type,
            "length": self.length,
            "required": self.required,
            "primary_key": self.primary_key,
            "default": self.default,
        }


def _us_date(text: str) -> datetime:
    for form in ("%m/%d/%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"):
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007  # the database keeps no zone
        except ValueError:
            continue
    raise ValueError(text)


def parse_field(described: Mapping[str, Any], ordinal: int, object_id: str) -> Field:
    """A field from the door's JSON; the vendor's own spellings are taken too."""
    kind = described.get("type", described.get("FieldType", "Text"))
    if kind not in TYPES:
        raise ValueError(f"a field's type is one of {', '.join(TYPES)}, not {kind!r}")
    length = described.get("length", described.get("MaxLength", _DEFAULT_LENGTHS.get(kind)))
    key = bool(described.get("primary_key", described.get("IsPrimaryKey", False)))
    return Field(
        name=str(described.get("name") or described["Name"]),
        type=kind,
        length=int(length) if length is not None and kind in {*_DEFAULT_LENGTHS, "Decimal"} else None,
        scale=described.get("scale"),
        required=bool(described.get("required", described.get("IsRequired", key))),
        primary_key=key,
        default=str(described.get("default", described.get("DefaultValue", "")) or ""),
        ordinal=int(described.get("ordinal", ordinal)),
        object_id=object_id,
        hidden=bool(described.get("hidden", False)),
        read_only=bool(described.get("read_only", False)),
    )
