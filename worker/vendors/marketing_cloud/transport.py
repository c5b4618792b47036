"""One call to Marketing Cloud, REST or SOAP, and the error that its answer stands for.

A refused token is renewed once; a second refusal is final. Credentials go to the host that the token names, which
`tokens.py` has checked. Two envelopes live side by side: the gateway's {message, errorcode} and the validation's
{requestId, resultMessages}; bodies may also be text.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from typing import Any

import requests

from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from models.tables import Destination
from models.vendor_text import masked
from worker.context import Context
from worker.vendors.http import Http, json_of, retry_after, who
from worker.vendors.marketing_cloud import soap
from worker.vendors.marketing_cloud.passing import passes
from worker.vendors.marketing_cloud.tokens import BLOCKED_CODE, Token, Tokens, too_many
from worker.vendors.rate_limits import MARKETING_CLOUD_REQUESTS, Limits

SOAP_RATE_LIMITED = "17"
SOAP_CALL = "a SOAP Retrieve"
# Of 2,500 items each, the documented maximum.
SOAP_PAGES_MAX = 100
READ, WRITE = "data_extensions_read", "data_extensions_write"
BUSY_SECONDS = 30.0
# The gateway's "Service Not Found": a path it does not have, whatever is sent there.
SERVICE_NOT_FOUND = 596
# An aggregate; without additionalErrors a peer takes it for a passing failure.
AGGREGATE_ERROR = 10006


class NotThereError(ConfigurationError):
    """What was asked for is not there: as a rule the data extension, but also a job that is forgotten."""


class ForbiddenError(ConfigurationError):
    """The API itself refuses the call: a scope, or who may do it in this business unit."""


class PayloadTooLargeError(TransientError):
    """413: split the batch."""


class RowsRefusedError(TransientError):
    """A synchronous call was refused for the sake of some row: those before it are saved, the rest is not.

    `rows` are the (code, message) that are said, in no known order. They may quote a contact key, so they stay out
    of the error's text.
    """

    rows: tuple[tuple[str, str], ...] = ()


class BatchRefusedError(ConfigurationError):
    """A write was refused as a whole, maybe for what a row holds: nothing of it was taken.

    `rows` are the (code, message) that are said, as in RowsRefusedError.
    """

    rows: tuple[tuple[str, str], ...] = ()


class Calls:
    """Authorised calls for one destination."""

    def __init__(self, ctx: Context, destination: Destination) -> None:
        self._ctx, self._name = ctx, destination.name
        self.http = Http("MC_UNAVAILABLE")
        account = f"marketing-cloud:{destination.subdomain}:{destination.account_id or ''}"
        self.limits = Limits(ctx.redis, account, code="MC_RATE_LIMITED")
        self.tokens = Tokens(ctx, destination, self.http, self.limits)

    def rest(
        self, method: str, path: str, *, scope: str, admitted: Token | None = None, **options: Any
    ) -> requests.Response:
        """One REST call: the answer below 400, or the error. `admitted`: what `admit` gave for it."""
        refused: str | None = None
        headers = options.pop("headers", {})
        for last in (False, True):
            token, admitted = admitted or self.admit(refused), None
            response = self.http.send(
                method,
                token.rest + path,
                headers={**headers, "Authorization": f"Bearer {token.value}"},
                **options,
            )
            if requests.codes.ok <= response.status_code < requests.codes.multiple_choices:
                self.limits.succeeded()
                return response
            if response.status_code == requests.codes.unauthorized and not last:
                refused = token.value
                continue
            call = f"{method} {path.partition('?')[0].rpartition('/')[2]}"
            raise self._refusal(response, call, scope, token)
        raise AssertionError  # the loop returns or raises

    def retrieve(
        self, kind: str, properties: tuple[str, ...], *, by: str, value: str
    ) -> list[dict[str, str]]:
        """All that a SOAP Retrieve of `kind` finds where `by` equals `value`."""
        found = self._soap(lambda token: soap.retrieve(kind, properties, by=by, value=value, token=token))
        items = found.items
        for _ in range(SOAP_PAGES_MAX):
            if found.status == "OK":
                return items
            request_id = found.request_id
            if not request_id:
                break
            found = self._soap(functools.partial(_more, request_id))
            items += found.items
        raise ContractError("MC_CONTRACT", "It has no end.", call=SOAP_CALL)

    def _soap(self, body: Callable[[str], bytes]) -> soap.Answer:
        """One SOAP call; `body` makes it with a token."""
        refused: str | None = None
        for last in (False, True):
            token = self.admit(refused)
            response = self.http.send(
                "POST",
                f"{token.soap}Service.asmx",
                data=body(token.value),
                headers={"Content-Type": "text/xml; charset=utf-8", "SOAPAction": "Retrieve"},
            )
            fault = soap.fault(response.content)
            if response.status_code == requests.codes.ok and not fault:
                found = soap.answer(response.content)
                if found is None:
                    raise _not_the_api(response, SOAP_CALL)
                self.limits.succeeded()
                if found.status in {"OK", "MoreDataAvailable"}:
                    return found
                fault = found.status
            if not last and (soap.of_token(fault) or response.status_code == requests.codes.unauthorized):
                refused = token.value
                continue
            raise self._soap_refusal(response, fault, token)
        raise AssertionError  # the loop returns or raises

    def admit(self, refused: str | None = None) -> Token:
        """Count one call, or raise RateLimited; the token for it, another one than `refused`."""
        self.limits.admit("rest", MARKETING_CLOUD_REQUESTS)
        return self.tokens.get(refused=refused)

    def _soap_refusal(self, response: requests.Response, said: str, token: Token) -> SyncError:
        """The error of a SOAP answer; `said` is its fault or its OverallStatus."""
        status = response.status_code
        if status == requests.codes.too_many_requests:
            return too_many(response, self.limits, self._ctx)
        self.limits.passed()
        if SOAP_RATE_LIMITED in said.split() or "rate limit" in said.lower():
            return self._cool(response)
        if soap.of_privilege(said) or (
            status == requests.codes.unauthorized and isinstance(json_of(response), dict)
        ):
            return self._forbidden(SOAP_CALL, READ, token)
        if status == SERVICE_NOT_FOUND:
            return ContractError("MC_CONTRACT", f"It answered {status}.", call=SOAP_CALL)
        if soap.of_token(said):  # with a new token: it is known to come and go
            return TransientError("MC_UNAVAILABLE", "It refused a new token over SOAP.")
        if status == requests.codes.ok and not passes(said):
            return soap.RetrieveRefusedError("MC_CONTRACT", f"It said: {masked(said)[:200]}", call=SOAP_CALL)
        return TransientError("MC_UNAVAILABLE", f"A SOAP Retrieve answered {who(response)}.")

    def _cool(self, response: requests.Response) -> RateLimited:
        wait = retry_after(response, now=self._ctx.clock(), default=BUSY_SECONDS)
        return RateLimited("MC_RATE_LIMITED", retry_after=self.limits.refused(wait, "MC_RATE_LIMITED"))

    def _refusal(  # noqa: PLR0911 - a table in order of precedence
        self, response: requests.Response, call: str, scope: str, token: Token
    ) -> SyncError:
        """The error of an answer: by its status, then by whichever of the two envelopes it has."""
        status, body = response.status_code, json_of(response)
        known = isinstance(body, dict)  # else whoever answered is not the API
        body = body if known else {}
        if status == requests.codes.too_many_requests or body.get("errorcode") == BLOCKED_CODE:
            return too_many(response, self.limits, self._ctx)
        self.limits.passed()
        if status == requests.codes.request_timeout or status >= requests.codes.server_error:
            return self._unwell(response, call)
        if status == requests.codes.request_entity_too_large:
            return PayloadTooLargeError("MC_REJECTED", "It was too large.", call=call)
        codes = _codes(body)
        if known and ("CustomObjectNotFound" in codes or status == requests.codes.not_found):
            return NotThereError("DATA_EXTENSION_MISSING", destination=self._name)
        if known and status in {401, 403}:
            return self._forbidden(call, scope, token)
        if str(AGGREGATE_ERROR) in codes:
            return _rows_refused(body, call)
        if scope == WRITE and status >= requests.codes.bad_request and status not in {401, 404}:
            return _batch_refused(response, body, call)
        if not known or status < requests.codes.bad_request:
            return _not_the_api(response, call)
        return ConfigurationError("MC_REJECTED", f"It answered {status} ({', '.join(codes)}).", call=call)

    def _unwell(self, response: requests.Response, call: str) -> SyncError:
        """A server's error: it may pass, but for a path that the gateway does not have."""
        status = response.status_code
        if status == SERVICE_NOT_FOUND:
            return ContractError("MC_CONTRACT", "It answered 596: there is no such service.", call=call)
        if status == requests.codes.service_unavailable and "Retry-After" in response.headers:
            return self._cool(response)
        return TransientError("MC_UNAVAILABLE", f"{call} answered {who(response)}.", status=status)

    def _forbidden(self, call: str, scope: str, token: Token) -> ConfigurationError:
        """A refusal by the API itself. With the scope granted it is about who asks, or where."""
        advice = f"Grant the package the scope {scope}. Changed scopes take up to five minutes."
        if scope in token.scopes:
            advice = (
                f"The package has the scope {scope}: check that its user may use the data extension in this business "
                f"unit, or set another unit with `cohort-sync destination update {shlex.quote(self._name)} "
                "--account-id`."
            )
        return ForbiddenError("MC_FORBIDDEN", call=call, advice=advice)


def _more(request_id: str, token: str) -> bytes:
    return soap.retrieve_more(request_id, token=token)


def _not_the_api(response: requests.Response, call: str) -> TransientError:
    """Somebody on the way answered, and that passes: who it was is not known, so no cause is named."""
    return TransientError("MC_UNAVAILABLE", f"{call} answered {who(response)}, not in the API's form.")


def _codes(body: dict[str, Any]) -> list[str]:
    """The codes of an error in either envelope: the vendor's words may quote a contact key, codes never do."""
    results = body.get("resultMessages")
    found = (
        [str(m.get("resultCode")) for m in results if isinstance(m, dict)]
        if isinstance(results, list)
        else []
    )
    return [code[:60] for code in found] or [str(body.get("errorcode", "no code"))[:60]]


def _rows_refused(body: dict[str, Any], call: str) -> RowsRefusedError:
    more = body.get("additionalErrors")
    errors = [error for error in more if isinstance(error, dict)] if isinstance(more, list) else []
    refused = RowsRefusedError("MC_REJECTED", call=call)
    refused.rows = tuple((str(e.get("errorcode", "UNKNOWN")), str(e.get("message") or "")) for e in errors)
    return refused


def _batch_refused(response: requests.Response, body: dict[str, Any], call: str) -> BatchRefusedError:
    codes, message = _codes(body) if body else [f"HTTP_{response.status_code}"], body.get("message")
    refused = BatchRefusedError("MC_REJECTED", f"It answered {who(response)}: {', '.join(codes)}.", call=call)
    results = body.get("resultMessages")
    told = [m.get("message") for m in results if isinstance(m, dict)] if isinstance(results, list) else []
    words = [text for text in (message, *told) if isinstance(text, str)]
    refused.rows = ((codes[0], " ".join(words) or f"The request was answered {who(response)}."),)
    return refused
