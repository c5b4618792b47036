"""A Marketing Cloud account: the installed package, its tokens, the data extensions and the jobs.

State only; HTTP stands in `marketing_cloud`, `rows`, `reading`, `soap`.
"""

from __future__ import annotations

import base64
import random
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox.marketing_cloud.data_extension import DataExtension, Retention
from sandbox.marketing_cloud.fields import Field
from sandbox.marketing_cloud.jobs import Jobs
from sandbox.switches import Switches

PARENT_ACCOUNT, CHILD_ACCOUNT = 510000001, 510000002
CLIENT_ID, CLIENT_SECRET = "sandbox-client-id", "sandbox-client-secret"  # public on purpose
# Amplitude's permission set is these six [AMP].
SCOPES = (
    "audiences_read",
    "audiences_write",
    "list_and_subscribers_read",
    "list_and_subscribers_write",
    "data_extensions_read",
    "data_extensions_write",
)


@dataclass
class Package:
    """An installed package with a server-to-server integration."""

    client_id: str
    client_secret: str
    scopes: tuple[str, ...] = SCOPES
    account_id: int = PARENT_ACCOUNT
    accounts: tuple[int, ...] = (PARENT_ACCOUNT, CHILD_ACCOUNT)
    enabled: bool = True


@dataclass
class Token:
    """A bearer token: good for one business unit, until it expires."""

    text: str
    scopes: frozenset[str]
    account_id: int
    expires: float


@dataclass
class Tenant:
    """Everything Marketing Cloud knows."""

    rng: random.Random
    switches: Switches
    jobs: Jobs
    packages: dict[str, Package] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    tokens_issued: int = 0
    extensions: list[DataExtension] = field(default_factory=list)
    readers: dict[str, DataExtension] = field(default_factory=dict)
    continuations: dict[str, Any] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)

    def guid(self) -> str:
        """The next id; the seed decides."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def issue(self, scopes: frozenset[str], account_id: int, now: float) -> Token:
        """A JWT-like text of some 400 characters, as recorded; it means nothing."""
        head = base64.urlsafe_b64encode(
            orjson.dumps({"alg": "HS256", "kid": "1", "ver": "1", "typ": "JWT"})
        ).decode()
        body = base64.urlsafe_b64encode(self.rng.randbytes(240)).decode()
        tail = base64.urlsafe_b64encode(self.rng.randbytes(32)).decode()
        text = f"{head}.{body}.{tail}".replace("=", "")
        token = Token(text, scopes, account_id, now + self.switches.token_life)
        self.tokens = {t: known for t, known in self.tokens.items() if known.expires > now - 86400}
        self.tokens[text] = token
        self.tokens_issued += 1
        return token

    def expire_tokens(self, now: float) -> None:
        """Every token ends now."""
        for token in self.tokens.values():
            token.expires = min(token.expires, now)

    def over_rate(self, now: float) -> bool:
        """Count this call; whether it is one too many in the last minute."""
        limit = self.switches.mc_requests_per_minute
        if not limit:
            return False
        while self.recent and self.recent[0] <= now - 60:
            self.recent.popleft()
        if len(self.recent) >= limit:
            return True
        self.recent.append(now)
        return False

    def visible(self, account_id: int) -> list[DataExtension]:
        """A business unit sees its own data extensions and the shared ones."""
        return [d for d in self.extensions if d.account_id == account_id or d.shared]

    def by_key(self, key: str, account_id: int) -> DataExtension | None:
        """By external key, as far as this business unit can see."""
        return next((d for d in self.visible(account_id) if d.key.lower() == key.lower()), None)

    def addressed(self, text: str, account_id: int) -> DataExtension | None:
        """By external key or by name, as `DataExtensionObject[...]` takes both [FuelSDK]."""
        named = (d for d in self.visible(account_id) if d.name.lower() == text.lower())
        return self.by_key(text, account_id) or next(named, None)

    def by_id(self, guid: str, account_id: int) -> DataExtension | None:
        """By object id, as far as this business unit can see."""
        return next((d for d in self.visible(account_id) if d.id == guid.lower()), None)

    def by_name(self, name: str) -> DataExtension | None:
        """By name, wherever it is: for the door."""
        return next((d for d in self.extensions if d.name.lower() == name.lower()), None)


def default_extension(tenant: Tenant, now: float) -> DataExtension:
    """Amplitude Engage, as made in the browser, so that its key is a GUID and not its name [LIVE MCE]."""
    fields = [
        Field("Contact Key", "Text", 254, required=True, primary_key=True),
        Field("Purchasers", "Boolean"),
        Field("Churn Risk", "Boolean"),
        Field("Trialers", "Boolean"),
        Field("Text Flag", "Text", 5),
        Field("Number Flag", "Number"),
        Field("Last Seen", "Date"),
    ]
    for at, column in enumerate(fields):
        column.ordinal, column.object_id = at, tenant.guid()
    return DataExtension(
        id=tenant.guid(),
        key=tenant.guid().upper(),
        name="Amplitude Engage",
        created_at=now - 30 * 86400,
        account_id=PARENT_ACCOUNT,
        sendable_field="Contact Key",
        retention=Retention(),
        fields=fields,
    )
