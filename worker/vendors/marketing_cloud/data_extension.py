"""The data extension as Marketing Cloud describes it, over SOAP or over REST. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from models.errors import ConfigurationError

DATA_EXTENSION_NAME = "Amplitude Engage"
CONTACT_KEY = "Contact Key"

RETENTION = (
    "DataRetentionPeriodLength",
    "DataRetentionPeriodUnitOfMeasure",
    "RowBasedRetention",
    "ResetRetentionPeriodOnImport",
    "DeleteAtEndOfRetentionPeriod",
    "RetainUntil",
)
PROPERTIES = ("ObjectID", "CustomerKey", "Name", "CategoryID", "IsSendable", *RETENTION)
FIELD_PROPERTIES = (
    "Name",
    "FieldType",
    "MaxLength",
    "IsRequired",
    "IsPrimaryKey",
    "DefaultValue",
    "Ordinal",
)


@dataclass(frozen=True)
class Field:
    """A column of the data extension. `length` in characters is none where the type has none.

    Only REST tells `hidden` and `read_only`; over SOAP they are false.
    """

    name: str
    type: str
    length: int | None
    required: bool
    primary_key: bool
    default: str
    hidden: bool = False
    read_only: bool = False


@dataclass(frozen=True)
class DataExtension:
    """The data extension as found by its name: what the API addresses it by, and its columns."""

    id: str
    key: str
    fields: tuple[Field, ...]
    retention: dict[str, str] = field(default_factory=dict)
    sendable: bool = False

    def field_named(self, name: str) -> Field | None:
        """The field of that name; Marketing Cloud compares field names without case."""
        return next((f for f in self.fields if f.name.casefold() == name.strip().casefold()), None)


def the_one(found: Iterable[dict[str, str]], *, destination: str) -> dict[str, str] | None:
    """The one of these whose name is exactly right, or none; several are refused.

    The server compares names without case, so what it gives is looked at again.
    """
    found = list(found)
    exact = [item for item in found if item.get("Name") == DATA_EXTENSION_NAME]
    if len(exact) > 1:
        raise ConfigurationError("DATA_EXTENSION_AMBIGUOUS", count=len(exact), destination=destination)
    if not exact and found:
        near = found[0].get("Name", "")[:100]
        raise ConfigurationError(
            "DATA_EXTENSION_MISSING", f"There is one named {near!r}.", destination=destination
        )
    return exact[0] if exact else None


def made_of(item: dict[str, str], fields: Iterable[Field]) -> DataExtension:
    """A SOAP DataExtension with these fields."""
    return DataExtension(
        id=item.get("ObjectID", ""),
        key=item.get("CustomerKey", ""),
        fields=tuple(fields),
        retention={name: item[name] for name in RETENTION if item.get(name)},
        sendable=item.get("IsSendable", "").lower() == "true",
    )


def soap_fields(results: Iterable[dict[str, str]]) -> list[Field]:
    """Fields of a SOAP Retrieve, which come unsorted."""
    return [_soap_field(item) for item in sorted(results, key=lambda item: _number(item.get("Ordinal")) or 0)]


def rest_fields(body: Any) -> list[Field]:
    """Fields of GET /data/v1/customobjects/{guid}/fields; none of anything else."""
    items = body.get("fields") if isinstance(body, dict) else None
    return [_rest_field(item) for item in items or () if isinstance(item, dict) and item.get("name")]


def _soap_field(item: dict[str, str]) -> Field:
    return Field(
        name=item.get("Name", ""),
        type=item.get("FieldType", ""),
        length=_number(item.get("MaxLength")),  # absent for Number, Date and Boolean
        required=item.get("IsRequired", "").lower() == "true",
        primary_key=item.get("IsPrimaryKey", "").lower() == "true",
        default=item.get("DefaultValue", ""),
    )


def _rest_field(item: dict[str, Any]) -> Field:
    return Field(
        name=str(item["name"]),
        type=str(item.get("type") or ""),
        length=_number(item.get("length")),
        required=item.get("isNullable") is False,
        primary_key=item.get("isPrimaryKey") is True,
        default=str(item.get("defaultValue") or ""),
        hidden=item.get("isHidden") is True,
        read_only=item.get("isReadOnly") is True,
    )


def _number(value: object) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and int(text) else None
