"""Access tokens, one per subdomain, client and business unit, shared by all workers until shortly before they end.

Salesforce asks for at most one token request in 20 minutes per client ("API Limits and Guidelines"); the
cached token is encrypted, so Redis never holds one in clear.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import requests
from pydantic import SecretStr
from redis.exceptions import RedisError

from config.queue import KEY_PREFIX
from models.errors import ConfigurationError, ContractError, RateLimited, TransientError
from models.tables import Destination
from worker.context import Context
from worker.http import Http, NotSentError, json_of, retry_after
from worker.limits import Limits

# Lifetimes of 1079 s were recorded, the documentation says 20 minutes: the answer's own figure counts.
EARLY_SECONDS = 60
# An account block (429 with errorcode 50200) carries no Retry-After; it lasts minutes at least.
BLOCKED_SECONDS = 300.0
BLOCKED_CODE = 50200
RATE_LIMIT_DEFAULT_SECONDS = 30.0
# Audiences, Lists and Subscribers, Data Extensions, each read and write: what Amplitude asks for, too.
SCOPES = (
    "audiences_read",
    "audiences_write",
    "list_and_subscribers_read",
    "list_and_subscribers_write",
    "data_extensions_read",
    "data_extensions_write",
)


@dataclass(frozen=True)
class Token:
    """A bearer token and where it is good. `rest` and `soap` end with a slash."""

    value: str = field(repr=False)
    rest: str
    soap: str
    scopes: tuple[str, ...]

    @property
    def missing_scopes(self) -> list[str]:
        """Which of the six scopes the package was not granted."""
        return [scope for scope in SCOPES if scope not in self.scopes]


class Tokens:
    """The tokens of one destination."""

    def __init__(self, ctx: Context, destination: Destination, http: Http, limits: Limits) -> None:
        self._ctx, self._destination, self._http, self._limits = ctx, destination, http, limits
        identity = f"{destination.subdomain}|{destination.client_id}|{destination.account_id or ''}"
        self._key = f"{KEY_PREFIX}token:{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}"

    def get(self, *, refused: str | None = None) -> Token:
        """A token good for a while; a new one where the cached one is `refused`."""
        token = self._cached()
        if token is not None and token.value != refused:
            return token
        return self._fetch()

    def _cached(self) -> Token | None:
        try:
            stored = self._ctx.redis.get(self._key)
        except RedisError:
            return None
        if not isinstance(stored, bytes):
            return None
        try:
            fields = json.loads(self._ctx.db.keyring.decrypt(stored).get_secret_value())
        except ConfigurationError:  # stored under a key that is no longer in the ring
            return None
        return Token(**{**fields, "scopes": tuple(fields["scopes"])})

    def _fetch(self) -> Token:
        destination, settings = self._destination, self._ctx.settings
        base = (
            settings.marketing_cloud_auth_url
            or f"https://{destination.subdomain}.auth.marketingcloudapis.com"
        )
        payload: dict[str, Any] = {
            "grant_type": "client_credentials",
            "client_id": destination.client_id,
            "client_secret": self._ctx.db.keyring.decrypt(destination.client_secret_token).get_secret_value(),
        }
        if destination.account_id:
            payload["account_id"] = int(destination.account_id)
        try:
            response = self._http.send("POST", base.removesuffix("/v2/token") + "/v2/token", json=payload)
        except NotSentError as error:
            if error.context.get("dns"):  # a wrong subdomain is a name that does not resolve
                raise ConfigurationError("MC_SUBDOMAIN_UNKNOWN", subdomain=destination.subdomain) from None
            raise
        if response.status_code != requests.codes.ok:
            raise self._refusal(response)
        return self._accept(json_of(response))

    def _accept(self, body: Any) -> Token:
        try:
            token = Token(
                value=body["access_token"],
                rest=self._checked_host(body["rest_instance_url"]),
                soap=self._checked_host(body["soap_instance_url"]),
                scopes=tuple(str(body.get("scope") or "").split()),
            )
            seconds = int(body["expires_in"]) - EARLY_SECONDS
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ContractError("MC_CONTRACT", call="the token request") from None
        if seconds > 0:
            secret = SecretStr(json.dumps(asdict(token)))
            try:
                self._ctx.redis.set(self._key, self._ctx.db.keyring.encrypt(secret), ex=seconds)
            except RedisError:
                pass  # not shared this time
        return token

    def _checked_host(self, url: str) -> str:
        """Our credentials go to Salesforce's hosts alone (or to those of a configured stand-in)."""
        if not self._ctx.settings.marketing_cloud_auth_url:
            host = url.removeprefix("https://").split("/")[0]
            if not url.startswith("https://") or not host.endswith(".marketingcloudapis.com"):
                raise ContractError("MC_CONTRACT", call="the token request")
        return url.rstrip("/") + "/"

    def _refusal(self, response: requests.Response) -> Exception:
        status, body = response.status_code, json_of(response)
        description = str(body.get("error_description", "")) if isinstance(body, dict) else ""
        if status == requests.codes.too_many_requests:
            return too_many(response, self._limits, self._ctx)
        if status in {400, 401, 403}:
            code = "MC_ACCOUNT" if "not accessible" in description else "MC_CREDENTIALS"
            return ConfigurationError(code, destination=self._destination.name)
        return TransientError("MC_UNAVAILABLE", f"The token request answered {status}.")


def too_many(response: requests.Response, limits: Limits, ctx: Context) -> RateLimited:
    """A 429: everybody cools down. 50200 is an account block, everything else a rate limit."""
    body = json_of(response)
    blocked = isinstance(body, dict) and body.get("errorcode") == BLOCKED_CODE
    code = "MC_BLOCKED" if blocked else "MC_RATE_LIMITED"
    default = BLOCKED_SECONDS if blocked else RATE_LIMIT_DEFAULT_SECONDS
    wait = retry_after(response, now=ctx.clock(), default=default)
    limits.cool_down(wait, code)
    return RateLimited(code, retry_after=wait)
