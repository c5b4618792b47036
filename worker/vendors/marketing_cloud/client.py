"""Marketing Cloud's APIs: find the data extension, upsert rows, follow a job, read rows back.

An upsert is of absolute values, so sending one twice is harmless; what may never happen is an old one landing
after a newer contradicting one: that order is kept by the caller. Facts: docs/vendors.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import quote

import orjson
import requests

from models.errors import ConfigurationError, ContractError, RateLimited, TransientError
from models.tables import Destination
from worker.context import Context
from worker.vendors.ahead import Ahead
from worker.vendors.http import AnswerLostError, json_of, who
from worker.vendors.marketing_cloud import acknowledgement
from worker.vendors.marketing_cloud import data_extension as described
from worker.vendors.marketing_cloud.acknowledgement import JobState
from worker.vendors.marketing_cloud.data_extension import (
    CONTACT_KEY,
    DATA_EXTENSION_NAME,
    DataExtension,
    Field,
)
from worker.vendors.marketing_cloud.passing import passes
from worker.vendors.marketing_cloud.rowset import RowsPage, page_of
from worker.vendors.marketing_cloud.soap import RetrieveRefusedError
from worker.vendors.marketing_cloud.tokens import Token
from worker.vendors.marketing_cloud.transport import READ, WRITE, Calls, ForbiddenError, PayloadTooLargeError

__all__ = [
    "BATCH_BYTES",
    "BATCH_ROWS",
    "CONTACT_KEY",
    "DATA_EXTENSION_NAME",
    "READ",
    "SYNC_ROWS",
    "DataExtension",
    "Field",
    "JobState",
    "MarketingCloud",
    "PayloadTooLargeError",
    "RowResult",
]

# "API Limits and Guidelines": 32,000 objects an asynchronous request, hard. Ours stay well below.
BATCH_ROWS = 25_000
# The rowset's documentation says 5 MB; a peer measured 5.9. A margin below the smaller.
BATCH_BYTES = 4_500_000
# The same page: 50 objects a synchronous request, soft.
SYNC_ROWS = 50
# Of a further page of results: how often it is asked for, and the longest wait that a limit may ask for each time.
PAGE_TRIES, PAGE_WAIT_SECONDS = 8, 30.0
PAGE_ROWS = 2_500


@dataclass(frozen=True)
class RowResult:
    """One row's outcome. What passes by itself, as a deadlock does, may simply be sent again."""

    ok: bool
    code: str = ""
    message: str = ""

    @property
    def passing(self) -> bool:
        """Whether the row was refused for something that passes by itself."""
        return not self.ok and passes(self.message)


class MarketingCloud:
    """A client for one destination."""

    def __init__(self, ctx: Context, destination: Destination) -> None:
        self._name = destination.name
        self._calls = Calls(ctx, destination)

    def take_count(self) -> int:
        """Requests made since the last call."""
        count, self._calls.http.count = self._calls.http.count, 0
        return count

    def close(self) -> None:
        """Close the connections."""
        self._calls.http.close()

    def token(self) -> Token:
        """A token: cached, or fresh."""
        self._calls.limits.check_cooldown()
        return self._calls.tokens.get()

    def checked_token(self) -> Token:
        """A token that tells the package's scopes of now, not those of when it was cached."""
        self._calls.limits.check_cooldown()
        return self._calls.tokens.checked()

    # --- finding ---------------------------------------------------------------------------------------

    def find(self) -> DataExtension:
        """The data extension by its exact name, with its fields.

        The API addresses it by id or key, which the name says nothing about. SOAP's `Name equals` is the one exact
        look-up, but without the scope it answers 200 with nothing: REST is asked then, which says 403.
        """
        found = self._calls.retrieve(
            "DataExtension", described.PROPERTIES, by="Name", value=DATA_EXTENSION_NAME
        )
        item = described.the_one(found, destination=self._name)
        if item is None:
            named = self._searched()
            raise ConfigurationError(
                "DATA_EXTENSION_MISSING",
                "REST finds one that SOAP does not show." if named else "",
                destination=self._name,
            )
        if not item.get("ObjectID") or not item.get("CustomerKey"):
            raise ContractError("MC_CONTRACT", call="a SOAP Retrieve")
        fields = self._fields(item)
        if not fields:
            raise ConfigurationError("DATA_EXTENSION_FIELDS", destination=self._name)
        return described.made_of(item, fields)

    def rest_fields(self, data_extension_id: str) -> list[Field]:
        """The fields as REST tells them; it alone knows which are hidden or read-only."""
        path = f"data/v1/customobjects/{quote(data_extension_id, safe='')}/fields"
        return described.rest_fields(self._read(path))

    def _fields(self, item: dict[str, str]) -> list[Field]:
        try:
            found = self._calls.retrieve(
                "DataExtensionField",
                described.FIELD_PROPERTIES,
                by="DataExtension.CustomerKey",
                value=item["CustomerKey"],
            )
        except (
            RetrieveRefusedError
        ):  # "String or binary data would be truncated.": a key too long for this filter
            return self.rest_fields(item["ObjectID"])
        return described.soap_fields(found)

    def _searched(self) -> bool:
        """Whether REST finds that name; a missing scope is an error here. `$search` matches substrings."""
        items = self._read(f"data/v1/customobjects?$search={quote(DATA_EXTENSION_NAME)}").get("items")
        items = items if isinstance(items, list) else []
        return any(isinstance(item, dict) and item.get("name") == DATA_EXTENSION_NAME for item in items)

    # --- writing ---------------------------------------------------------------------------------------

    def submit(self, data_extension_id: str, body: bytes) -> str:
        """Queue an upsert of `{"items": [...]}`: the job's request id. A 202 means queued, nothing more."""
        response = self._calls.rest(
            "PUT",
            f"data/v1/async/dataextensions/{quote(data_extension_id, safe='')}/rows",
            scope=WRITE,
            data=body,
            headers={"Content-Type": "application/json"},
        )
        request_id = acknowledgement.queued(response)
        if request_id is None:  # it may be queued all the same
            raise AnswerLostError("MC_UNAVAILABLE", f"It answered {who(response)} without a request id.")
        return request_id

    def save(self, data_extension_id: str, body: bytes) -> None:
        """Upsert at most SYNC_ROWS rows of `[{"keys": {...}, "values": {...}}]` at once.

        RowsRefusedError for a bad row, without saying which: those before it are saved, those after it are dropped.
        AnswerLostError for whatever is not an echo of just these rows.
        """
        try:
            response = self._calls.rest(
                "POST",
                f"hub/v1/dataevents/{quote(data_extension_id, safe='')}/rowset",
                scope=WRITE,
                data=body,
                headers={"Content-Type": "application/json"},
            )
        except ForbiddenError as error:  # seen with scopes that sufficed for asynchronous rows
            raise ConfigurationError("MC_SYNC_UNAVAILABLE", destination=self._name) from error
        if not acknowledgement.saved(response, [row["keys"][CONTACT_KEY] for row in orjson.loads(body)]):
            raise AnswerLostError("MC_UNAVAILABLE", f"It answered {who(response)} without naming the rows.")

    def job(self, request_id: str) -> JobState:
        """Where a job stands."""
        answer = self._read(f"data/v1/async/{quote(request_id, safe='')}/status")
        return acknowledgement.job_state(answer, request_id)

    def results(self, request_id: str) -> list[RowResult]:
        """The rows' outcomes in the order they were submitted in; it may be shorter than the batch.

        Whether there are pages is not documented. A row is known by its position alone, so a further page counts
        only after a full one, and only if it says that it is the one asked for.
        """
        rows: list[RowResult] = []
        page = 1
        while True:
            answer = self._results_page(request_id, page)
            items = answer.get("items")
            if not isinstance(items, list) or (page > 1 and answer.get("page") != page):
                return rows
            rows += [_row_result(item) for item in items]
            count, size = answer.get("count"), answer.get("pageSize")
            more = isinstance(count, int) and len(rows) < count
            if not items or not more or len(items) != size:
                return rows
            page += 1

    def _results_page(self, request_id: str, page: int) -> dict[str, Any]:
        """One page. After the first one a limit is waited for here: a new attempt would begin with the first again.

        With a limit of fewer requests than there are pages that had no end.
        """
        path = f"data/v1/async/{quote(request_id, safe='')}/results"
        for left in reversed(range(PAGE_TRIES)):
            try:
                return self._read(path, params={"$page": page} if page > 1 else None)
            except RateLimited as limited:
                if page == 1 or not left or limited.retry_after > PAGE_WAIT_SECONDS:
                    raise
                time.sleep(limited.retry_after)
        raise AssertionError  # the loop returns or raises

    def pages(self, key: str, first: int = 1) -> Iterator[RowsPage]:
        """The rows with all their fields, page by page: there is no choosing of fields that could be relied on."""
        path = f"data/v1/customobjectdata/key/{quote(key, safe='')}/rowset?%24page={first}&%24pagesize={PAGE_ROWS}"
        asked, guess = self._ahead(path), ""
        for number in count(first):
            response = asked.result()
            guess = guess if response.content.startswith(b"{") else ""  # not where a gateway has answered
            if guess:  # a link like those before: asked for while this page is parsed
                asked = self._ahead(guess)
            answer = self._answered(path, response)
            page = page_of(answer, number)
            links = answer.get("links")
            following = links.get("next") if isinstance(links, dict) else None
            more = isinstance(following, str) and following.startswith("/") and bool(page.rows)
            if more:  # asked for while this page is taken; the link lacks the /data prefix
                link = f"data{following}"
                if link != guess:
                    asked = self._ahead(link)
                alike = link == _next(path, number) and page.count > (number + 1) * len(page.rows)
                guess = _next(link, number + 1) if alike else ""
                path = link
            yield page
            if not more:
                return

    def rows(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row as (contact key, {field in lower case: value})."""
        for page in self.pages(key):
            yield from page.rows

    def _read(self, path: str, **options: Any) -> dict[str, Any]:
        """A JSON object with the status 200. Anything else in its place is a gateway's, and passes."""
        return self._answered(path, self._ask(path, **options))

    def _ask(self, path: str, **options: Any) -> requests.Response:
        return self._calls.rest("GET", path, scope=READ, **options)

    def _ahead(self, path: str) -> Ahead[requests.Response]:
        return Ahead(self._calls.admit, lambda token: self._ask(path, admitted=token))

    def _answered(self, path: str, response: requests.Response) -> dict[str, Any]:
        answer = json_of(response)
        what = path.partition("?")[0].rpartition("/")[2]
        if response.status_code != requests.codes.ok or answer is None:
            raise TransientError("MC_UNAVAILABLE", f"GET {what} answered {who(response)}, not with JSON.")
        if isinstance(answer, dict):
            return answer
        raise ContractError("MC_CONTRACT", call=f"GET {what}")


def _next(link: str, number: int) -> str:
    """The link to the page after this one, if it is like this one; nothing if it does not say its number."""
    found, times = re.subn(rf"((?:\$|%24)page=){number}(?!\d)", rf"\g<1>{number + 1}", link)
    return found if times == 1 else ""


def _row_result(item: Any) -> RowResult:
    if not isinstance(item, dict):
        return RowResult(ok=False, code="UNKNOWN", message="an answer outside the documented shape")
    if acknowledgement.row_taken(item):
        return RowResult(ok=True)
    told = item.get("errors")
    errors = [e for e in told if isinstance(e, dict)] if isinstance(told, list) else []
    reasons = [str(item.get("message") or ""), *(str(e.get("errorMessage") or "") for e in errors)]
    codes = [e.get("errorCode") for e in errors] or [item.get("errorCode")]
    return RowResult(
        ok=False,
        code=str(codes[0] if codes[0] is not None else "UNKNOWN"),
        message=" ".join(reason for reason in reasons if reason).strip(),
    )
