"""The product's clients against a running sandbox: a context on real servers, a source and a destination in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from config.queue import make_app
from config.settings import Settings
from models.contact_keys.codec import decode_keys
from models.database import Database
from models.direction import Direction
from models.errors import SyncError
from models.membership import state
from models.runs import lifecycle
from models.setup import destinations, sources
from models.tables import AmplitudeProject, CohortBinding, Destination, SyncRun
from models.types import RunState, Stage, Tier, Trigger
from tests import factories
from tests.contract.sandboxed import CLIENT, Sandbox
from tests.support import Valkey
from worker.claim import work
from worker.context import Context
from worker.stages.diff import diff
from worker.stages.finish import finish
from worker.stages.push import push
from worker.stages.snapshot import snapshot
from worker.vendors.amplitude.client import Amplitude
from worker.vendors.marketing_cloud.client import MarketingCloud


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

    def start(self, binding: CohortBinding, *, full: bool = False) -> int:
        """A run of the binding, to be worked on."""
        now = self.ctx.clock()
        with self.ctx.db.write() as session:
            mine = session.get_one(CohortBinding, binding.id)
            run = lifecycle.dispatch(
                session, mine, trigger=Trigger.MANUAL, scheduled_for=now, full=full, now=now, actor="test"
            )
        return run.id

    def claim(self, run_id: int) -> SyncRun:
        """Do the run's stage once, as a worker that got its message; a waiting run's time has come."""
        run = self.look(run_id)
        if run.wake_at is not None and run.wake_at > self.ctx.clock():
            self.moved += run.wake_at - self.ctx.clock() + timedelta(milliseconds=1)
            self.thaw()
        claim(self.ctx, run)
        return self.look(run_id)

    def work(self, run_id: int, *, until: Stage | None = None) -> SyncRun:
        """Claim the run until it has ended, or stands at a stage."""
        run = self.look(run_id)
        for _ in range(300):
            if RunState(run.state).finished or run.stage == until:
                return run
            run = self.claim(run_id)
        raise AssertionError((run.state, run.stage, run.error_code, run.error_message))

    def sync(self, binding: CohortBinding, *, full: bool = False) -> SyncRun:
        """A run of the binding, done."""
        return self.work(self.start(binding, full=full))

    def count(self, binding: CohortBinding) -> tuple[int, bool, int]:
        """The binding's member count, whether it may be off, and how many members are stored in truth."""
        found: set[str] = set()
        with self.ctx.db.read() as session:
            row = session.get_one(CohortBinding, binding.id)
            for blob in state.iter_chunks(session, binding.id):
                found.update(decode_keys(blob))
            for direction, blob in state.iter_deltas(session, binding.id):
                keys = decode_keys(blob)
                found = found.union(keys) if direction == Direction.ENTER else found.difference(keys)
        return row.member_count, row.member_count_rough, len(found)

    def look(self, run_id: int) -> SyncRun:
        """The run as it stands."""
        with self.ctx.db.read() as session:
            return session.get_one(SyncRun, run_id)

    def close(self) -> None:
        """Close what was opened."""
        for client in self._opened:
            client.close()

    def thaw(self) -> None:
        """Every cool-down of ours is over."""
        for key in self.ctx.redis.keys("*:cool"):
            self.ctx.redis.delete(key)


def make_product(settings: Settings, db: Database, broker: Valkey, sandbox: Sandbox) -> Product:
    """An installation whose two vendors are the sandbox."""
    redis = broker.client
    at_sandbox = settings.model_copy(
        update={
            "redis_url": broker.url,
            "uncertain_seconds": 5.0,
            "amplitude_base_url": sandbox.url,
            "marketing_cloud_auth_url": f"{sandbox.url}/v2/token",
        }
    )
    redis.flushall()
    product = Product(Context(at_sandbox, db, redis, make_app(at_sandbox)), sandbox)
    product.ctx.clock = lambda: datetime.now(UTC) + product.moved
    return product


def claim(ctx: Context, run: SyncRun) -> None:
    """Do the stage that the run stands at once, as a worker that got its message."""
    stages = {Stage.SNAPSHOT: snapshot, Stage.DIFF: diff, Stage.PUSH: push, Stage.FINISH: finish}
    work(ctx, run.id, Stage(run.stage), stages[Stage(run.stage)])


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
