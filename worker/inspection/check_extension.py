"""What can be said of a data extension by looking at its description. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from models.errors import ConfigurationError, SyncError
from models.tables import CohortBinding
from worker.vendors.marketing_cloud.data_extension import CONTACT_KEY, DataExtension, Field

FLAG_TYPES: dict[str, tuple[bool | str | int, bool | str | int]] = {
    "Boolean": (True, False),
    "Text": ("true", "false"),
    "Number": (1, 0),
}
# A flag that is set as it reads back, case aside: everything comes as text, a Boolean in no established spelling.
FLAGGED: dict[str, frozenset[str]] = {
    "Boolean": frozenset({"true", "1", "yes", "y"}),
    "Text": frozenset({"true"}),
    "Number": frozenset({"1"}),
}
KEY_TYPES = ("Text", "EmailAddress")
LONGEST_FLAG_TEXT = len("false")
# Contact Key holds up to 254 characters; the user interface makes Text fields of 50.
KEY_LENGTH_ADVISED = 254


@dataclass(frozen=True)
class Step:
    """One precondition. `status` is ok, warn or fail; a failing one has a code and a remedy."""

    name: str
    status: str
    detail: str
    code: str | None = None
    remedy: str | None = None
    error: SyncError | None = None


def failed(name: str, error: SyncError) -> Step:
    """The step of that name, failed by the error."""
    return Step(name, "fail", error.message, error.code, error.remedy, error)


def flag_value(field_type: str, *, entering: bool) -> bool | str | int:
    """What is written: true or false in the form of the field's type."""
    return FLAG_TYPES[field_type][0 if entering else 1]


def is_flagged(field_type: str, value: object) -> bool:
    """Whether a value that was read back is the true of `flag_value`."""
    return _is_true(field_type, str(value))


@lru_cache(maxsize=64)  # a data extension of millions holds a handful of values
def _is_true(field_type: str, value: str) -> bool:
    return value.strip().casefold() in FLAGGED[field_type]


def extension_steps(extension: DataExtension, binding: CohortBinding | None) -> list[Step]:
    """What can be said of the data extension without another request."""
    steps = [_named("primary key", lambda: _primary_key(extension))]
    mine = binding.attribute if binding is not None else ""
    steps.append(_named("other required fields", lambda: _required(extension, mine)))
    if binding is not None:
        steps.append(_named("attribute", lambda: _attribute(extension, binding)))
        steps += _attribute_advice(extension.field_named(binding.attribute))
    steps += _advice(extension)
    return steps


def _primary_key(extension: DataExtension) -> str:
    keys = [field for field in extension.fields if field.primary_key]
    if [field.name for field in keys] != [CONTACT_KEY]:
        found = " and ".join(repr(field.name) for field in keys) or "none"
        raise ConfigurationError("PRIMARY_KEY_WRONG", found=found)
    if keys[0].type not in KEY_TYPES:
        raise ConfigurationError("PRIMARY_KEY_WRONG", found=f"of the type {keys[0].type}")
    return f"{CONTACT_KEY}, {keys[0].type}({keys[0].length or 'max'})"


def _required(extension: DataExtension, attribute: str) -> str:
    fields = [
        field.name
        for field in extension.fields
        if _blocks_inserts(field) and field.name.casefold() != attribute.strip().casefold()
    ]
    if fields:
        raise ConfigurationError("REQUIRED_FIELDS", fields=", ".join(fields))
    return "none without a default"


def _blocks_inserts(field: Field) -> bool:
    return field.required and not field.default and not field.primary_key


def _attribute(extension: DataExtension, binding: CohortBinding) -> str:
    field = extension.field_named(binding.attribute)
    if field is None:
        raise ConfigurationError("ATTRIBUTE_MISSING", attribute=binding.attribute, binding=binding.name)
    if field.primary_key:
        raise ConfigurationError("ATTRIBUTE_UNUSABLE", attribute=field.name, reason="it is the primary key")
    if field.type not in FLAG_TYPES:
        raise ConfigurationError("ATTRIBUTE_TYPE", attribute=field.name, type=field.type)
    if field.read_only:
        raise ConfigurationError("ATTRIBUTE_UNUSABLE", attribute=field.name, reason="it is read-only")
    if field.type == "Text" and field.length is not None and field.length < LONGEST_FLAG_TEXT:
        raise ConfigurationError(
            "ATTRIBUTE_UNUSABLE", attribute=field.name, reason=f"{field.length} characters can't hold 'false'"
        )
    return f"{field.name}, {field.type}"


def _attribute_advice(field: Field | None) -> Iterator[Step]:
    """What does not keep this binding from working."""
    if field is None:
        return
    if _blocks_inserts(field):
        yield Step(
            "attribute required",
            "warn",
            f"{field.name} is required: other bindings of this data extension can't insert new contacts",
            remedy="Make it nullable, or give it the default False.",
        )
    if field.hidden:
        yield Step(
            "attribute hidden",
            "warn",
            f"{field.name} is hidden: nobody sees the flags in Marketing Cloud",
            remedy="Unhide it in the data extension's fields.",
        )


def _advice(extension: DataExtension) -> Iterator[Step]:
    key = extension.field_named(CONTACT_KEY)
    if key is not None and key.length is not None and key.length < KEY_LENGTH_ADVISED:
        yield Step(
            "contact key's length",
            "warn",
            f"{key.length} characters; a contact key may have {KEY_LENGTH_ADVISED}",
            remedy="Lengthen the field if keys are longer; a run with a longer one fails before it pushes.",
        )
    if _deletes(extension.retention):
        yield Step(
            "retention",
            "warn",
            "Marketing Cloud deletes rows or the data extension after a time: flags "
            "of members who stay would be lost",
            remedy="Switch data retention off in its properties.",
        )
    yield Step(
        "attribute group", "ok", "advice: link the data extension to an attribute group through Contact Key"
    )


def _deletes(retention: dict[str, str]) -> bool:
    """Whether a period or an end is set, or one of the two flags that only mean something with one."""
    length = retention.get("DataRetentionPeriodLength", "0")
    flags = ("RowBasedRetention", "DeleteAtEndOfRetentionPeriod")
    return (
        length.strip("0 ") != ""
        or bool(retention.get("RetainUntil"))
        or any(retention.get(name, "").lower() == "true" for name in flags)
    )


def _named(name: str, look: Callable[[], str]) -> Step:
    try:
        return Step(name, "ok", look())
    except ConfigurationError as error:
        return failed(name, error)
