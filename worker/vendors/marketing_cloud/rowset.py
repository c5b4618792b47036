"""A page of a data extension's rows as the rowset call answers it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.errors import ContractError
from worker.vendors.marketing_cloud.data_extension import CONTACT_KEY

_KEY = CONTACT_KEY.lower()  # names of fields come back in lower case


@dataclass(frozen=True)
class RowsPage:
    """Rows as (contact key, {field in lower case: value}); `count` is how many the data extension has in all."""

    number: int
    count: int
    rows: list[tuple[str, dict[str, Any]]]


def page_of(answer: dict[str, Any], number: int) -> RowsPage:
    """The page of that number; ContractError for anything else, because a row that is not seen looks removed."""
    items, count = answer.get("items") or [], answer.get("count")  # `items` is absent when there are none
    try:
        if not isinstance(count, int) or answer.get("page", number) != number:
            raise ContractError("MC_CONTRACT", call="GET rowset")
        return RowsPage(
            number, count, [(str(item["keys"][_KEY]), item.get("values") or {}) for item in items]
        )
    except (KeyError, TypeError, AttributeError):
        raise ContractError("MC_CONTRACT", call="GET rowset") from None
