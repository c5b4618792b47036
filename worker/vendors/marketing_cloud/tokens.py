"""Access tokens, one per subdomain, client and business unit, shared by all workers until shortly before they end.

Salesforce asks for at most one token request in 20 minutes per client ("API Limits and Guidelines"); the
cached token is encrypted, so Redis never holds one in clear. Facts: docs/vendors.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr
from redis.exceptions import RedisError

from config.queue_names import KEY_PREFIX
from models.errors import ConfigurationError, ContractError, RateLimited, SyncError, TransientError
from models.tables import Destination
from worker.context import Context
from worker.vendors.http import Http, NotSentError, json_of, retry_after, who
from worker.vendors.rate_limits import BLOCKED, Limits

# Lifetimes of 1079 s were recorded, the documentation says 20 minutes: the answer's own figure counts.
EARLY_SECONDS = 60
# 429 or not: this errorcode says that the account is blocked. It carries no Retry-After.
BLOCKED_CODE = 50200
RATE_LIMIT_DEFAULT_SECONDS = 30.0
# So long a token is used without looking for it again: much shorter than EARLY_SECONDS.
HELD_SECONDS = 5.0
# Changed scopes show in new tokens within five minutes, never in old ones: a check takes a cached token only if
# it is younger than this, so that checking ten bindings costs one token request.
CHECK_SECONDS = 60.0
# How long one worker may be asking while the others wait for its token; answers take well under a second.
ASKING_SECONDS = 5.0
# Audiences, Lists and Subscribers, Data Extensions, each read and write: what Amplitude asks for, too.
SCOPES = (
    "audiences_read",
    "audiences_write",
    "list_and_subscribers_read",
    "list_and_subscribers_write",
    "data_extensions_read",
    "data_extensions_write",
)
# "rest_instance_url" and "soap_instance_url" of recorded answers; no user, no port, nothing after the slash.
_OURS = re.compile(r"https://(?:[a-z0-9-]+\.)+marketingcloudapis\.com/?", re.ASCII | re.IGNORECASE)
# In the description of a refusal: which business unit was asked for.
_ABOUT_ACCOUNT = re.compile(r"account[_ ]?id|not accessible|business unit|\bmid\b", re.ASCII)


@dataclass(frozen=True)
class Token:
    """A bearer token and where it is good. `rest` and `soap` end with a slash."""

    value: str = field(repr=False)
    rest: str
    soap: str
    scopes: tuple[str, ...]
    made_at: float = 0.0  # epoch seconds

    @property
    def missing_scopes(self) -> list[str]:
        """Which of the six scopes the package was not granted."""
        return [scope for scope in SCOPES if scope not in self.scopes]


class Tokens:
    """The tokens of one destination."""

    def __init__(self, ctx: Context, destination: Destination, http: Http, limits: Limits) -> None:
        self._ctx, self._destination, self._http, self._limits = ctx, destination, http, limits
        self._held: Token | None = None
        self._held_since = 0.0
        self._secret = ctx.db.keyring.decrypt(destination.client_secret_token).get_secret_value()
        # With the secret: a token that was got with another one must not hide that this one is wrong.
        parts = (destination.subdomain, destination.client_id, destination.account_id or "", self._secret)
        identity = "\0".join(parts)
        self._key = f"{KEY_PREFIX}token:{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}"

    def get(self, *, refused: str | None = None) -> Token:
        """A token good for a while; a new one where the cached one is `refused`."""
        held = self._held
        if held is not None and held.value != refused and 0 <= self._now - self._held_since < HELD_SECONDS:
            return held
        token = self._cached()
        if token is None or token.value == refused:
            with self._asking_alone():
                token = self._cached()
                token = token if token is not None and token.value != refused else self._fetch()
        return self._hold(token)

    def _hold(self, token: Token) -> Token:
        self._held, self._held_since = token, self._now
        return token

    @property
    def _now(self) -> float:
        return self._ctx.clock().timestamp()

    def checked(self) -> Token:
        """A token that tells the package's scopes of now: new, unless a complete one is new enough."""
        token = self._cached()
        age = self._now - token.made_at if token is not None else 0.0
        if token is not None and not token.missing_scopes and 0 <= age < CHECK_SECONDS:
            return token
        return self._fetch()

    @contextmanager
    def _asking_alone(self) -> Iterator[None]:
        """One of all workers asks for a token; the others find it when their turn comes, or ask in the end, too."""
        lock = self._ctx.redis.lock(
            f"{self._key}:asking", timeout=ASKING_SECONDS, blocking_timeout=ASKING_SECONDS, sleep=0.05
        )
        held = False
        with suppress(RedisError):
            held = lock.acquire()
        try:
            yield
        finally:
            if held:
                with suppress(RedisError):  # it has ended by its age
                    lock.release()

    def _cached(self) -> Token | None:
        try:
            stored = self._ctx.redis.get(self._key)
        except RedisError:
            return None
        if not isinstance(stored, bytes):
            return None
        try:
            fields = json.loads(self._ctx.db.keyring.decrypt(stored).get_secret_value())
            return Token(**{**fields, "scopes": tuple(fields["scopes"])})
        except (ConfigurationError, ValueError, TypeError, KeyError):  # of another key, or another version
            return None

    def _fetch(self) -> Token:
        destination, settings = self._destination, self._ctx.settings
        base = (
            settings.marketing_cloud_auth_url
            or f"https://{destination.subdomain}.auth.marketingcloudapis.com"
        )
        payload: dict[str, Any] = {
            "grant_type": "client_credentials",
            "client_id": destination.client_id,
            "client_secret": self._secret,
        }
        if destination.account_id:
            payload["account_id"] = int(destination.account_id)
        try:
            response = self._http.send("POST", base.removesuffix("/v2/token") + "/v2/token", json=payload)
        except NotSentError as error:
            if error.context.get("unknown_host"):  # a wrong subdomain is a name that does not resolve
                raise ConfigurationError("MC_SUBDOMAIN_UNKNOWN", subdomain=destination.subdomain) from None
            raise
        if response.status_code != requests.codes.ok:
            raise self._refusal(response)
        self._limits.passed()
        body = json_of(response)
        if not isinstance(body, dict):
            raise TransientError(
                "MC_UNAVAILABLE", f"The token request answered {who(response)}, not with a token."
            )
        return self._accept(body)

    def _accept(self, body: Any) -> Token:
        try:
            token = Token(
                value=_text(body["access_token"]),
                rest=self._checked_host(body["rest_instance_url"]),
                soap=self._checked_host(body["soap_instance_url"]),
                scopes=tuple(str(body.get("scope") or "").split()),
                made_at=self._now,
            )
            seconds = int(body["expires_in"]) - EARLY_SECONDS
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ContractError("MC_CONTRACT", call="the token request") from None
        if seconds > 0:
            secret = SecretStr(json.dumps(asdict(token)))
            with suppress(RedisError):  # not shared this time
                self._ctx.redis.set(self._key, self._ctx.db.keyring.encrypt(secret), ex=seconds)
        return self._hold(token)

    def _checked_host(self, url: str) -> str:
        """Our credentials go to Salesforce's hosts alone (or to that of a configured stand-in)."""
        stand_in = urlsplit(self._ctx.settings.marketing_cloud_auth_url).hostname
        if not _OURS.fullmatch(url) and (stand_in is None or urlsplit(url).hostname != stand_in):
            raise ContractError(
                "MC_CONTRACT", "It names a host that is not Salesforce's.", call="the token request"
            )
        return url.rstrip("/") + "/"

    def _refusal(self, response: requests.Response) -> SyncError:
        """What a refused token request means: OAuth's shape, or the gateway's."""
        status, body = response.status_code, json_of(response)
        known = isinstance(body, dict)  # else whoever answered is not the API
        body = body if known else {}
        if status == requests.codes.too_many_requests or body.get("errorcode") == BLOCKED_CODE:
            return too_many(response, self._limits, self._ctx)
        self._limits.passed()
        if known and status == requests.codes.not_found:  # a host that answers, and no tenant behind it
            return ConfigurationError("MC_SUBDOMAIN_UNKNOWN", subdomain=self._destination.subdomain)
        if known and status in {400, 401, 403}:
            return self._oauth_error(status, body)
        return TransientError("MC_UNAVAILABLE", f"The token request answered {who(response)}.")

    def _oauth_error(self, status: int, body: dict[str, Any]) -> SyncError:
        """OAuth's own refusal: of the business unit, of the credentials, or of something else in the request."""
        word = str(body.get("error") or body.get("errorcode") or "no OAuth error")
        word = word if word.isascii() and word.isprintable() else "no OAuth error"
        description = f"{body.get('error_description', '')} {body.get('message', '')}".lower()
        said, name = f"It said {word[:60]} ({status}).", self._destination.name
        if _ABOUT_ACCOUNT.search(description):
            return ConfigurationError("MC_ACCOUNT", said, destination=name)
        if (
            word in {"invalid_client", "unauthorized_client", "access_denied"}
            or status != requests.codes.bad_request
        ):
            return ConfigurationError("MC_CREDENTIALS", said, destination=name)
        return ContractError("MC_CONTRACT", said, call="the token request")


def too_many(response: requests.Response, limits: Limits, ctx: Context) -> RateLimited:
    """A 429: everybody cools down. 50200 is an account block, everything else a rate limit."""
    body = json_of(response)
    if isinstance(body, dict) and body.get("errorcode") == BLOCKED_CODE:
        return RateLimited(BLOCKED, retry_after=limits.block())
    wait = retry_after(response, now=ctx.clock(), default=RATE_LIMIT_DEFAULT_SECONDS)
    limits.passed()
    return RateLimited("MC_RATE_LIMITED", retry_after=limits.refused(wait, "MC_RATE_LIMITED"))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise ValueError
    return value
