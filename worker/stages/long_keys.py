"""Contact keys that the field Contact Key does not hold: a few are rejections, many are the wrong property.

They are never sent: what Marketing Cloud does with one is not documented, and a key that it cut short would be another
person's.
"""

from __future__ import annotations

from collections.abc import Iterator

from models.contact_keys.codec import decode_keys, encode_keys
from models.contact_keys.comparison import comparison_key
from models.errors import ConfigurationError
from models.runs.rejections import RejectedRow
from worker.membership.diff import Diff
from worker.vendors.marketing_cloud.client import CONTACT_KEY, DataExtension

CODE = "KEY_TOO_LONG"


def length(key: str) -> int:
    """In UTF-16 code units, as nvarchar counts."""
    return len(key.encode("utf-16-le")) // 2


def limit(found: Diff, extension: DataExtension, *, percent: float) -> int | None:
    """How long a key may be, if some of those who enter are longer; none if all fit.

    ConfigurationError KEY_TOO_LONG where more than `percent` of the members are longer.
    """
    field = extension.field_named(CONTACT_KEY)
    if field is None or field.length is None or found.longest_key <= field.length:
        return None
    longer = sum(length(key) > field.length for key in found.entering())
    if longer * 100 > percent * found.counts.members:
        raise ConfigurationError(
            CODE, longest=found.longest_key, length=field.length, count=longer, members=found.counts.members
        )
    return field.length


def split(keys: bytes, longest: int) -> tuple[tuple[int, bytes], Iterator[RejectedRow]]:
    """(rows, keys) of a blob without those that are longer than `longest`, and these as rejections."""
    known = decode_keys(keys)
    kept = [key for key in known if length(key) <= longest]
    refused = (
        RejectedRow(
            key,
            comparison_key(key),
            CODE,
            f"The contact key has {length(key)} characters; the field {CONTACT_KEY} holds {longest}.",
        )
        for key in known
        if length(key) > longest
    )
    return (len(kept), encode_keys(kept)), refused
