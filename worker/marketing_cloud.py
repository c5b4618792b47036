"""Marketing Cloud's APIs: find the data extension, upsert rows asynchronously, follow a job, read rows back.

An upsert is of absolute values, so sending one twice is harmless; what may never happen is an old one landing
after a newer contradicting one: that order is kept by the caller. Facts: docs/vendors.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import quote

import requests

from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from models.tables import Destination
from worker import soap
from worker.context import Context
from worker.http import Http, json_of, retry_after
from worker.limits import MARKETING_CLOUD_REQUESTS, Limits
from worker.token import Token, Tokens, too_many

DATA_EXTENSION_NAME = "Amplitude Engage"
CONTACT_KEY = "Contact Key"
# "API Limits and Guidelines": 32,000 objects an asynchronous request, hard. Ours stay well below.
BATCH_ROWS = 25_000
# The rowset's documentation says 5 MB; a peer measured 5.9. A margin below the smaller.
BATCH_BYTES = 4_500_000
# Deadlocks come from concurrent writers; Salesforce advises consecutive loads.
JOBS_IN_FLIGHT = 2
PAGE_ROWS = 2_500
SOAP_RATE_LIMITED = "17"

_PROPERTIES = (
    "ObjectID",
    "CustomerKey",
    "Name",
    "CategoryID",
    "IsSendable",
    "DataRetentionPeriodLength",
    "DataRetentionPeriodUnitOfMeasure",
    "RowBasedRetention",
    "ResetRetentionPeriodOnImport",
    "DeleteAtEndOfRetentionPeriod",
    "RetainUntil",
)
_FIELD_PROPERTIES = (
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
    """A column of the data extension. `length` is none where the type has none."""

    name: str
    type: str
    length: int | None
    required: bool
    primary_key: bool
    default: str


@dataclass(frozen=True)
class DataExtension:
    """The data extension as found by its name: what the API addresses it by, and its columns."""

    id: str
    key: str
    fields: tuple[Field, ...]
    retention: dict[str, str] = field(default_factory=dict)

    def field_named(self, name: str) -> Field | None:
        """The field of that name; Marketing Cloud compares field names without case."""
        return next((f for f in self.fields if f.name.casefold() == name.strip().casefold()), None)


class JobState(Enum):
    """Where an asynchronous job stands."""

    UNSEEN = "unseen"  # 200 without a status: fine, but not indexed yet
    RUNNING = "running"
    DONE = "done"
    DONE_WITH_ERRORS = "done with errors"
    FAILED = "failed"


@dataclass(frozen=True)
class RowResult:
    """One row's outcome. A deadlock victim may simply be sent again."""

    ok: bool
    code: str = ""
    message: str = ""

    @property
    def deadlocked(self) -> bool:
        """SQL Server's words are the only mark: the code is the same as for permanent refusals."""
        return not self.ok and self.message.rstrip().endswith("Rerun the transaction.")


class PayloadTooLargeError(TransientError):
    """413: split the batch."""


class MarketingCloud:
    """A client for one destination."""

    def __init__(self, ctx: Context, destination: Destination) -> None:
        self._ctx, self._name = ctx, destination.name
        self._http = Http("MC_UNAVAILABLE")
        account = f"marketing-cloud:{destination.subdomain}:{destination.account_id or ''}"
        self._limits = Limits(ctx.redis, account, code="MC_RATE_LIMITED")
        self._tokens = Tokens(ctx, destination, self._http, self._limits)

    def take_count(self) -> int:
        """Requests made since the last call."""
        count, self._http.count = self._http.count, 0
        return count

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def token(self) -> Token:
        """A token: cached, or fresh."""
        self._limits.check_cooldown()
        return self._tokens.get()

    # --- finding ---------------------------------------------------------------------------------------

    def find(self) -> DataExtension:
        """The data extension by its exact name, with its fields."""
        found = [
            item
            for item in self._retrieve("DataExtension", _PROPERTIES, by="Name", value=DATA_EXTENSION_NAME)
            if item.get("Name") == DATA_EXTENSION_NAME
        ]
        if not found:
            raise ConfigurationError("DATA_EXTENSION_MISSING", destination=self._name)
        if len(found) > 1:
            raise ConfigurationError("DATA_EXTENSION_AMBIGUOUS", count=len(found), destination=self._name)
        item = found[0]
        key = item.get("CustomerKey", "")
        fields = self._retrieve(
            "DataExtensionField", _FIELD_PROPERTIES, by="DataExtension.CustomerKey", value=key
        )
        if not item.get("ObjectID") or not key or not fields:
            raise ContractError("MC_CONTRACT", call="a SOAP Retrieve")
        return DataExtension(
            id=item["ObjectID"],
            key=key,
            fields=tuple(_field(f) for f in sorted(fields, key=lambda f: int(f.get("Ordinal") or 0))),
            retention={name: item[name] for name in _PROPERTIES[5:] if item.get(name)},
        )

    def _retrieve(
        self, kind: str, properties: tuple[str, ...], *, by: str, value: str
    ) -> list[dict[str, str]]:
        refused: str | None = None
        for last in (False, True):
            self._limits.admit("rest", MARKETING_CLOUD_REQUESTS)
            token = self._tokens.get(refused=refused)
            response = self._http.send(
                "POST",
                f"{token.soap}Service.asmx",
                data=soap.retrieve(kind, properties, by=by, value=value, token=token.value),
                headers={"Content-Type": "text/xml; charset=utf-8", "SOAPAction": "Retrieve"},
            )
            if response.status_code == requests.codes.ok:
                return soap.results(response.content)
            fault = soap.fault(response.content)
            expired = "Token" in fault or response.status_code == requests.codes.unauthorized
            if expired and not last:
                refused = token.value
                continue
            raise self._soap_refusal(response, fault, expired=expired)
        raise AssertionError  # the loop returns or raises

    def _soap_refusal(self, response: requests.Response, fault: str, *, expired: bool) -> SyncError:
        if expired:
            return ConfigurationError("MC_FORBIDDEN", call="a SOAP Retrieve", scope="data_extensions_read")
        if response.status_code == requests.codes.too_many_requests:
            return too_many(response, self._limits, self._ctx)
        if SOAP_RATE_LIMITED in fault.split() or "Rate Limited" in fault or "Rate limit" in fault:
            wait = retry_after(response, now=self._ctx.clock(), default=30.0)
            self._limits.cool_down(wait, "MC_RATE_LIMITED")
            return RateLimited("MC_RATE_LIMITED", retry_after=wait)
        return TransientError("MC_UNAVAILABLE", f"A SOAP Retrieve answered {response.status_code}.")

    # --- writing ---------------------------------------------------------------------------------------

    def submit(self, data_extension_id: str, body: bytes) -> str:
        """Queue an upsert of `{"items": [...]}`: the job's request id. A 202 means queued, nothing more."""
        response = self._call(
            "PUT",
            f"data/v1/async/dataextensions/{quote(data_extension_id, safe='')}/rows",
            scope="data_extensions_write",
            data=body,
            headers={"Content-Type": "application/json"},
        )
        answer = json_of(response)
        request_id = answer.get("requestId") if isinstance(answer, dict) else None
        if not isinstance(request_id, str) or not request_id:
            raise ContractError("MC_CONTRACT", call="the upsert")
        return request_id

    def job(self, request_id: str) -> JobState:
        """Where a job stands."""
        response = self._call(
            "GET", f"data/v1/async/{quote(request_id, safe='')}/status", scope="data_extensions_read"
        )
        answer = json_of(response)
        if not isinstance(answer, dict):
            raise ContractError("MC_CONTRACT", call="the job's status")
        status = answer.get("status")
        if not isinstance(status, dict):
            return JobState.UNSEEN
        match str(status.get("requestStatus")):
            case "Complete" | "Completed":
                errors = status.get("hasErrors") is True or status.get("resultStatus") == "Has Errors"
                return JobState.DONE_WITH_ERRORS if errors else JobState.DONE
            case "Error":
                return JobState.FAILED
            case _:
                return JobState.RUNNING

    def results(self, request_id: str) -> list[RowResult]:
        """The rows' outcomes in the order they were submitted in; it may be shorter than the batch."""
        rows: list[RowResult] = []
        page = 1
        while True:
            response = self._call(
                "GET",
                f"data/v1/async/{quote(request_id, safe='')}/results",
                scope="data_extensions_read",
                params={"$page": page} if page > 1 else None,
            )
            answer = json_of(response)
            items = answer.get("items") if isinstance(answer, dict) else None
            if not items or not isinstance(items, list):
                return rows
            rows += [_row_result(item) for item in items]
            if len(rows) >= int(answer.get("count") or 0):
                return rows
            page += 1

    def rows(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row as (contact key, {field in lower case: value}), page by page."""
        path: str | None = (
            f"data/v1/customobjectdata/key/{quote(key, safe='')}/rowset?%24page=1&%24pagesize={PAGE_ROWS}"
        )
        while path:
            answer = json_of(self._call("GET", path, scope="data_extensions_read"))
            if not isinstance(answer, dict):
                raise ContractError("MC_CONTRACT", call="reading the rows")
            for item in answer.get("items") or []:  # absent when there are none
                yield str(item["keys"][CONTACT_KEY.lower()]), item.get("values", {})
            following = (answer.get("links") or {}).get("next")
            # The link lacks the /data prefix.
            path = f"data{following}" if following and answer.get("items") else None

    # --- one call --------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, *, scope: str, **options: Any) -> requests.Response:
        """One REST call; a refused token is renewed once, a second refusal is final."""
        refused: str | None = None
        headers = options.pop("headers", {})
        for last in (False, True):
            self._limits.admit("rest", MARKETING_CLOUD_REQUESTS)
            token = self._tokens.get(refused=refused)
            response = self._http.send(
                method,
                token.rest + path,
                headers={**headers, "Authorization": f"Bearer {token.value}"},
                **options,
            )
            if response.status_code < requests.codes.bad_request:
                return response
            if response.status_code == requests.codes.unauthorized and not last:
                refused = token.value
                continue
            raise self._refusal(response, f"{method} {path.partition('?')[0].rpartition('/')[2]}", scope)
        raise AssertionError  # the loop returns or raises

    def _refusal(self, response: requests.Response, call: str, scope: str) -> SyncError:
        """The error of an answer: by its status, then by whichever of the two envelopes it has."""
        status, body = response.status_code, json_of(response)
        body = body if isinstance(body, dict) else {}
        results = [m for m in body.get("resultMessages") or [] if isinstance(m, dict)]
        if (
            any(m.get("resultCode") == "CustomObjectNotFound" for m in results)
            or status == requests.codes.not_found
        ):
            return ConfigurationError("DATA_EXTENSION_MISSING", destination=self._name)
        if status in {401, 403}:
            return ConfigurationError("MC_FORBIDDEN", call=call, scope=scope)
        if status == requests.codes.too_many_requests:
            return too_many(response, self._limits, self._ctx)
        if status == requests.codes.request_entity_too_large:
            return PayloadTooLargeError("MC_REJECTED", "It was too large.", call=call)
        if status == requests.codes.request_timeout or status >= requests.codes.server_error:
            if status == requests.codes.service_unavailable and "Retry-After" in response.headers:
                wait = retry_after(response, now=self._ctx.clock(), default=30.0)
                self._limits.cool_down(wait, "MC_RATE_LIMITED")
                return RateLimited("MC_RATE_LIMITED", retry_after=wait)
            return TransientError("MC_UNAVAILABLE", f"{call} answered {status}.", status=status)
        codes = [str(m.get("resultCode")) for m in results] or [str(body.get("errorcode", "no code"))]
        return ConfigurationError("MC_REJECTED", f"It answered {status} ({', '.join(codes)}).", call=call)


def _field(item: dict[str, str]) -> Field:
    return Field(
        name=item.get("Name", ""),
        type=item.get("FieldType", ""),
        length=int(item["MaxLength"]) if item.get("MaxLength", "").isdigit() else None,
        required=item.get("IsRequired", "").lower() == "true",
        primary_key=item.get("IsPrimaryKey", "").lower() == "true",
        default=item.get("DefaultValue", ""),
    )


def _row_result(item: Any) -> RowResult:
    if not isinstance(item, dict):
        return RowResult(ok=False, code="UNKNOWN", message="an answer outside the documented shape")
    if item.get("status") == "OK":
        return RowResult(ok=True)
    errors = [e for e in item.get("errors") or [] if isinstance(e, dict)]
    reasons = [str(item.get("message") or ""), *(str(e.get("errorMessage") or "") for e in errors)]
    codes = [e.get("errorCode") for e in errors] or [item.get("errorCode")]
    return RowResult(
        ok=False,
        code=str(codes[0] if codes[0] is not None else "UNKNOWN"),
        message=" ".join(reason for reason in reasons if reason).strip(),
    )
