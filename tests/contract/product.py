"""The product's clients against a running sandbox: a context on real servers, a source and a destination in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from redis import Redis

from config.queue import make_app
from config.settings import Settings
from models import destinations, sources
from models.database import Database
from models.errors import SyncError
from models.tables import AmplitudeProject, CohortBinding, Destination
from models.types import Tier
from tests import factories
from tests.contract.sandboxed import CLIENT, Sandbox
from worker.amplitude import Amplitude
from worker.context import Context
from worker.marketing_cloud import MarketingCloud


@dataclass
class Product:
    """One installation that talks to the sandbox. `moved` is how far its clock is ahead."""

    ctx: Context
    sandbox: Sandbox
    moved: timedelta = timedelta()
    _opened: list[Any] = field(default_factory=list)

    def source(self, name: str = "shop", **given: Any) -> AmplitudeProject:
        """A source with the sandbox's keys."""
        values: dict[str, Any] = {
            "api_key": SecretStr("sandbox-api-key"),
            "secret_key": SecretStr("sandbox-secret-key"),
            "tier": Tier.AUDIENCES,
            **given,
        }
        with self.ctx.db.write() as session:
            return sources.add_source(
                session, self.ctx.db.keyring, name=name, now=self.ctx.clock(), actor="test", **values
            )

    def destination(self, name: str = "mc", **given: Any) -> Destination:
        """A destination with the sandbox's package."""
        values: dict[str, Any] = {
            "subdomain": "mc563885gzs27c5t9-63k636ttgm",
            "client_id": CLIENT["client_id"],
            "client_secret": SecretStr(CLIENT["client_secret"]),
            "contact_key_property": "user_id",
            **given,
        }
        with self.ctx.db.write() as session:
            return destinations.add_destination(
                session, self.ctx.db.keyring, name=name, now=self.ctx.clock(), actor="test", **values
            )

    def binding(self, **given: Any) -> CohortBinding:
        """A binding of the sandbox's Purchasers cohort to its Purchasers field."""
        values = {"cohort_id": "purchrs", "attribute": "Purchasers", **given}
        return factories.make_binding(self.ctx.db, source="shop", destination="mc", **values)

    def amplitude(self, **given: Any) -> Amplitude:
        """A client for a new source."""
        client = Amplitude(self.ctx, self.source(**given))
        self._opened.append(client)
        return client

    def marketing_cloud(self, destination: Destination | None = None, **given: Any) -> MarketingCloud:
        """A client for the destination, or for a new one."""
        client = MarketingCloud(self.ctx, destination or self.destination(**given))
        self._opened.append(client)
        return client

    def close(self) -> None:
        """Close what was opened."""
        for client in self._opened:
            client.close()

    def thaw(self) -> None:
        """Every cool-down of ours is over."""
        for key in self.ctx.redis.keys("*:cool"):
            self.ctx.redis.delete(key)


def make_product(settings: Settings, db: Database, redis: Redis, sandbox: Sandbox) -> Product:
    """An installation whose two vendors are the sandbox."""
    at_sandbox = settings.model_copy(
        update={
            "redis_url": "redis://unused",
            "amplitude_base_url": sandbox.url,
            "marketing_cloud_auth_url": f"{sandbox.url}/v2/token",
        }
    )
    redis.flushall()
    product = Product(Context(at_sandbox, db, redis, make_app(at_sandbox)), sandbox)
    product.ctx.clock = lambda: datetime.now(UTC) + product.moved
    return product


def status(path: str, code: int, body: Any = "", **more: Any) -> dict[str, Any]:
    """A fault: these requests are answered so."""
    headers = more.pop("headers", {})
    return {
        "path": path,
        **more,
        "action": {"kind": "status", "status": code, "body": body, "headers": headers},
    }


def refused(error: SyncError) -> tuple[str, str]:
    """What an error says, with every <placeholder> shown up."""
    text = f"{error.message} {error.remedy}"
    assert "<" not in text, text
    return error.code, text
