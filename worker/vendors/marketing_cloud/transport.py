"""One call to Marketing Cloud, REST or SOAP, and the error that its answer stands for.

A refused token is renewed once; a second refusal is final. Credentials go to the host that the token names, which
`tokens.py` has checked. Two envelopes live side by side: the gateway's {message, errorcode} and the validation's
{requestId, resultMessages}; bodies may also be text.
"""

from __future__ import annotations

from typing import Any

import requests

from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from models.tables import Destination
from worker.context import Context
from worker.vendors.http import Http, json_of, retry_after
from worker.vendors.marketing_cloud import soap
from worker.vendors.marketing_cloud.tokens import BLOCKED_CODE, Token, Tokens, too_many
from worker.vendors.rate_limits import MARKETING_CLOUD_REQUESTS, Limits

SOAP_RATE_LIMITED = "17"
BUSY_SECONDS = 30.0
# The gateway's "Service Not Found": a path it does not have, whatever is sent there.
SERVICE_NOT_FOUND = 596
# An aggregate; without additionalErrors a peer takes it for a passing failure.
AGGREGATE_ERROR = 10006


class PayloadTooLargeError(TransientError):
    """413: split the batch."""


class RowsRefusedError(TransientError):
    """A synchronous call was refused for the sake of some row: those before it are saved, the rest is not.

    `rows` are the (code, message) that are said, in no known order. They may quote a contact key, so they stay out
    of the error's text.
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

    def rest(self, method: str, path: str, *, scope: str, **options: Any) -> requests.Response:
        """One REST call: the answer below 400, or the error."""
        refused: str | None = None
        headers = options.pop("headers", {})
        for last in (False, True):
            token = self._admitted(refused)
            response = self.http.send(
                method,
                token.rest + path,
                headers={**headers, "Authorization": f"Bearer {token.value}"},
                **options,
            )
            if response.status_code < requests.codes.bad_request:
                self.limits.passed()
                return response
            if response.status_code == requests.codes.unauthorized and not last:
                refused = token.value
                continue
            raise self._refusal(response, f"{method} {path.partition('?')[0].rpartition('/')[2]}", scope)
        raise AssertionError  # the loop returns or raises

    def retrieve(
        self, kind: str, properties: tuple[str, ...], *, by: str, value: str
    ) -> list[dict[str, str]]:
        """One SOAP Retrieve of `kind` where `by` equals `value`."""
        refused: str | None = None
        for last in (False, True):
            token = self._admitted(refused)
            response = self.http.send(
                "POST",
                f"{token.soap}Service.asmx",
                data=soap.retrieve(kind, properties, by=by, value=value, token=token.value),
                headers={"Content-Type": "text/xml; charset=utf-8", "SOAPAction": "Retrieve"},
            )
            if response.status_code == requests.codes.ok:
                self.limits.passed()
                return soap.results(response.content)
            fault = soap.fault(response.content)
            if soap.of_token(fault) or response.status_code == requests.codes.unauthorized:
                if not last:
                    refused = token.value
                    continue
                raise _forbidden("a SOAP Retrieve", "data_extensions_read")
            raise self._soap_refusal(response, fault)
        raise AssertionError  # the loop returns or raises

    def _admitted(self, refused: str | None) -> Token:
        self.limits.admit("rest", MARKETING_CLOUD_REQUESTS)
        return self.tokens.get(refused=refused)

    def _soap_refusal(self, response: requests.Response, fault: str) -> SyncError:
        status = response.status_code
        if status == requests.codes.too_many_requests:
            return too_many(response, self.limits, self._ctx)
        self.limits.passed()
        if SOAP_RATE_LIMITED in fault.split() or "rate limit" in fault.lower():
            return self._cool(response)
        if status == requests.codes.forbidden or soap.of_privilege(fault):
            return _forbidden("a SOAP Retrieve", "data_extensions_read")
        if status in {requests.codes.not_found, SERVICE_NOT_FOUND}:
            return ContractError("MC_CONTRACT", f"It answered {status}.", call="a SOAP Retrieve")
        return TransientError("MC_UNAVAILABLE", f"A SOAP Retrieve answered {status}.")

    def _cool(self, response: requests.Response) -> RateLimited:
        wait = retry_after(response, now=self._ctx.clock(), default=BUSY_SECONDS)
        self.limits.cool_down(wait, "MC_RATE_LIMITED")
        return RateLimited("MC_RATE_LIMITED", retry_after=wait)

    def _refusal(self, response: requests.Response, call: str, scope: str) -> SyncError:
        """The error of an answer: by its status, then by whichever of the two envelopes it has."""
        status, body = response.status_code, json_of(response)
        body = body if isinstance(body, dict) else {}
        if status == requests.codes.too_many_requests or body.get("errorcode") == BLOCKED_CODE:
            return too_many(response, self.limits, self._ctx)
        self.limits.passed()
        if status == requests.codes.request_timeout or status >= requests.codes.server_error:
            return self._unwell(response, call)
        codes = _codes(body)
        if "CustomObjectNotFound" in codes or status == requests.codes.not_found:
            return ConfigurationError("DATA_EXTENSION_MISSING", destination=self._name)
        if status in {401, 403}:
            return _forbidden(call, scope)
        if status == requests.codes.request_entity_too_large:
            return PayloadTooLargeError("MC_REJECTED", "It was too large.", call=call)
        if str(AGGREGATE_ERROR) in codes:
            return _rows_refused(body, call)
        return ConfigurationError("MC_REJECTED", f"It answered {status} ({', '.join(codes)}).", call=call)

    def _unwell(self, response: requests.Response, call: str) -> SyncError:
        """A server's error: it may pass, but for a path that the gateway does not have."""
        status = response.status_code
        if status == SERVICE_NOT_FOUND:
            return ContractError("MC_CONTRACT", "It answered 596: there is no such service.", call=call)
        if status == requests.codes.service_unavailable and "Retry-After" in response.headers:
            return self._cool(response)
        return TransientError("MC_UNAVAILABLE", f"{call} answered {status}.", status=status)


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


def _forbidden(call: str, scope: str) -> ConfigurationError:
    return ConfigurationError("MC_FORBIDDEN", call=call, scope=scope)
