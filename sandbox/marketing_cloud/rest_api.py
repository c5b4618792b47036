"""Marketing Cloud's token endpoint, and what every REST call has in common: errors, authorisation, addressing.

Authorisation comes before anything is resolved [LIVE MCE]: a token without the scope is a 403 even for a key
that does not exist. The token endpoint speaks OAuth's error shape, REST speaks errorcode.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.marketing_cloud.tenant import Token
from sandbox.replies import base_url, reply
from sandbox.world import World

GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
DOCUMENTATION = "https://developer.salesforce.com/docs/atlas.en-us.mc-apis.meta/mc-apis/error-handling.htm"
_ERROR_URI = "https://developer.salesforce.com/docs"
Handler = Callable[[World, Request, Token], Awaitable[Response]]


class RestError(Exception):
    """A REST answer that ends the request."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def rest_error(status: int, message: str, errorcode: int | None, **more: object) -> RestError:
    """The envelope of the gateway: message, errorcode, documentation [OFF ERR]."""
    body: dict[str, object] = {"message": message}
    if errorcode is not None:
        body["errorcode"] = errorcode
    body["documentation"] = more.pop("documentation", "")
    body.update(more)
    return RestError(reply(body, status))


def not_authorized() -> RestError:
    """[fixture SDK test/resources/auth.js]"""
    return rest_error(401, "Not Authorized", 0, documentation=DOCUMENTATION)


def guarded(world: World, request: Request, scope: str) -> Token:
    """The token of this request, or the answer that refuses it."""
    now, s, tenant = world.clock.now(), world.switches, world.tenant
    if "access_token" in request.query_params:
        raise rest_error(401, "Access token must be sent in the Authorization header.", 40004)
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    token = tenant.tokens.get(text.strip()) if kind.lower() == "bearer" else None
    if token is None or token.expires <= now:
        raise not_authorized()
    if tenant.over_rate(now):
        raise RestError(rate_limited(s.mc_retry_after))
    if scope not in token.scopes:
        raise rest_error(403, "Insufficient privileges to complete this action.", 20002)
    return token


def rate_limited(seconds: int) -> Response:
    """429 / 50100 with Retry-After in the header and in the body [OFF rate-limiting-errors]."""
    body = {"message": "Rate limit exceeded", "errorcode": 50100, "documentation": "", "retryAfter": seconds}
    return reply(body, 429, {"Retry-After": str(seconds)})


def json_body(request_body: bytes, request: Request) -> object:
    """The body as JSON, or the answer that refuses it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise rest_error(415, "Unsupported Media Type", 0)
    try:
        return orjson.loads(request_body)
    except orjson.JSONDecodeError:
        raise rest_error(400, "Unable to deserialize the JSON in the request body.", 10004) from None


def addressed(text: str) -> tuple[str, str]:
    """(id, key) of `key:KEY` or a GUID in a path; the rest of the world is not an address."""
    decoded = unquote(text)
    if decoded.lower().startswith("key:"):
        return "", decoded[4:]
    if GUID.match(decoded):
        return decoded, ""
    return "", ""


async def token(world: World, request: Request) -> Response:
    """POST /v2/token, server to server; JSON or form [OFF, PEER]."""
    raw = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        form = orjson.loads(raw) if kind == "application/json" else dict(parse_qsl(raw.decode(), True))
    except ValueError:
        form = None
    if not isinstance(form, dict):
        return _oauth(400, "invalid_request", "The request body could not be read.")
    if form.get("grant_type") != "client_credentials":
        return _oauth(400, "unsupported_grant_type", "The grant type is not supported.")
    package = world.tenant.packages.get(str(form.get("client_id", "")))
    if package is None:
        # [RUD network.ts]
        return _oauth(
            401,
            "invalid_client",
            "Invalid client ID. Use the client ID in Marketing Cloud Installed Packages.",
        )
    if form.get("client_secret") != package.client_secret or not package.enabled:
        # [SDK and MCDEV fixtures]
        return _oauth(
            401,
            "invalid_client",
            "Client authentication failed. Make sure that the client ID and client secret are valid and that the "
            "package is installed and enabled.",
        )
    account = form.get("account_id")
    if account is not None and not str(account).isdigit():
        return _oauth(400, "invalid_request", "account_id must be a number.")
    mid = int(account) if account is not None else package.account_id
    if mid not in package.accounts:
        return _oauth(
            401, "invalid_client", f"Client ID {package.client_id} is not accessible for this account."
        )
    # Left out: every scope of the package. Empty: a token without any [OFF].
    asked = form.get("scope")
    scopes = package.scopes if asked is None else tuple(str(asked).split())
    foreign = [s for s in scopes if s not in package.scopes]
    if foreign and world.switches.unknown_scope == "refused":
        return _oauth(400, "invalid_scope", f"Scope {foreign[0]} is not available to this package.")
    scopes = tuple(s for s in scopes if s in package.scopes)
    issued = world.tenant.issue(frozenset(scopes), mid, world.clock.now())
    base = base_url(request)
    return reply(
        {
            "access_token": issued.text,
            "token_type": "Bearer",
            "expires_in": world.switches.token_expires_in,
            "scope": " ".join(scopes),
            "soap_instance_url": f"{base}/",
            "rest_instance_url": f"{base}/",
        }
    )


def _oauth(status: int, error: str, description: str) -> Response:
    return reply({"error": error, "error_description": description, "error_uri": _ERROR_URI}, status)
