"""Two releases side by side: the one before this works on while the schema becomes ours and processes are replaced."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from cli.main import main as command_line
from models import schema
from models.database import Database
from models.naming import find
from models.tables import CohortBinding
from models.types import RunState
from tests import mains
from tests.contract.sandboxed import Sandbox
from tests.forked import Forked, Main
from tests.previous_release import SCHEMA, PreviousRelease, unpack
from tests.product import Product, settings_for, valkey_over_tcp
from tests.support import ROOT, environment, wait_until

pytestmark = pytest.mark.timeout(300)  # each process of the other release needs a second or two to begin
SECRETS = ("API_KEY", "SECRET_KEY", "CLIENT_ID", "CLIENT_SECRET")
BINDINGS = [("buyers", "purchrs", "Purchasers"), ("others", "trialer", "Trialers")]
# Commands of the release before.
SET_UP = [
    "source add shop --api-key env:API_KEY --secret-key env:SECRET_KEY --tier audiences",
    "destination add engage --subdomain mc563885gzs27c5t9-63k636ttgm --contact-key-property user_id"
    " --client-id env:CLIENT_ID --client-secret env:CLIENT_SECRET",
    *(
        f"binding add {name} --source shop --cohort {cohort} --destination engage"
        f" --attribute {attribute} --max-removal-percent 100"
        for name, cohort, attribute in BINDINGS
    ),
]


class Deployment:
    """Processes of both releases on the same servers."""

    def __init__(self, product: Product, old: PreviousRelease, folder: Path) -> None:
        self.product, self.old, self._folder = product, old, folder
        self._environment = environment(product.db.settings)
        self._running: dict[str, subprocess.Popen[bytes] | Forked] = {}

    def start_old(self, role: str) -> None:
        self._running[f"old {role}"] = self.old.start(role, log=self.log(f"old {role}"))

    def start_ours(self, role: str, *words: str, main: Main = command_line) -> None:
        self._running[f"our {role}"] = Forked(
            main, [role, *words], env=self._environment, cwd=ROOT, stderr=self.log(f"our {role}")
        )

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        assert process.wait(40) == 0, name

    def close(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(40)

    def version(self) -> str:
        with self.product.db.read() as session:
            return str(session.scalar(text("SELECT version_num FROM alembic_version")))

    def syncs(self, name: str, cohort: str, attribute: str) -> None:
        """A run of it after a change ends well, whoever did its stages."""
        self.ends_well(self.start(name, cohort), attribute, cohort)

    def start(self, name: str, cohort: str) -> int:
        """A run after a change, by whichever command line the schema has."""
        self.product.cohort(cohort, churn={"enter": 20, "exit": 20})
        if self.version() == SCHEMA:
            self.old(f"run {name}", log=self.log("old run"))
            with self.product.db.read() as session:
                return int(session.scalar(text("SELECT max(id) FROM sync_run")) or 0)
        with self.product.db.read() as session:
            binding = find(session, CohortBinding, name)
        return self.product.start(binding)

    def _ended(self, run_id: int) -> tuple[str, str | None] | None:
        """In words that both schemas have."""
        statement = text("SELECT state, error_code FROM sync_run WHERE id = :id AND finished_at IS NOT NULL")
        with self.product.db.read() as session:
            found = session.execute(statement, {"id": run_id}).one_or_none()
        return None if found is None else (found[0], found[1])

    def ends_well(self, run_id: int, attribute: str, cohort: str) -> None:
        found = wait_until(lambda: self._ended(run_id), seconds=90, pause=0.05)
        assert found == (RunState.SUCCEEDED, None)
        self.product.equal(cohort, attribute)
        for process in self._running.values():
            assert process.poll() is None


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    unpack(folder)
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def deployment(
    request: pytest.FixtureRequest, vendors: Sandbox, old_tree: Path, tmp_path: Path
) -> Iterator[Deployment]:
    given: dict[str, Any] = {"secret_key": Fernet.generate_key().decode(), "worker_concurrency": 1}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_url")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS two_versions WITH (FORCE)")
            connection.execute("CREATE DATABASE two_versions")
        given["database_url"] = server.replace("/postgres?", "/two_versions?")
    vendors.reset()
    with valkey_over_tcp() as redis_url:
        settings = settings_for(vendors, tmp_path, redis_url=redis_url, **given)
        secrets = {name: f"sandbox-{name.lower().replace('_', '-')}" for name in SECRETS}
        old = PreviousRelease(old_tree, environment(settings) | secrets)
        old("db upgrade", *SET_UP, log=tmp_path / "set up.log")
        db = Database(settings)
        found = Deployment(Product(db, vendors, None, tmp_path), old, tmp_path)
        try:
            yield found
        finally:
            found.close()
            found.product.close()
            db.dispose()


def test_processes_are_replaced_one_by_one(deployment: Deployment) -> None:
    (buyers, cohort, attribute), others = BINDINGS
    deployment.start_old("scheduler")
    deployment.start_old("worker")
    deployment.syncs(*others)
    # The schema changes under a run that waits for the vendor, and under processes that stay.
    deployment.product.sandbox.switch(async_execute_seconds=3.0)
    at_work = deployment.start(buyers, cohort)
    wait_until(
        lambda: deployment.product.sandbox.door("GET", "requests", path="/rows")["requests"], seconds=30
    )
    assert deployment.version() == SCHEMA
    schema.upgrade(deployment.product.db)
    deployment.ends_well(at_work, attribute, cohort)
    deployment.product.sandbox.switch(async_execute_seconds=0.01)
    deployment.syncs(*others)
    deployment.start_ours("worker", "--name", "ours")
    deployment.syncs(*others)
    deployment.stop("old worker")
    deployment.syncs(buyers, cohort, attribute)
    deployment.start_ours("scheduler")
    deployment.syncs(*others)
    deployment.stop("old scheduler")
    deployment.syncs(buyers, cohort, attribute)


def test_workers_of_the_release_before_are_woken_by_our_scheduler(deployment: Deployment) -> None:
    """They do not read `next`: what nobody takes from there comes by the way that they know."""
    deployment.start_old("worker")  # it would not start on the new schema
    wait_until(lambda: " ready." in deployment.log("old worker").read_text(), seconds=30)
    schema.upgrade(deployment.product.db)
    deployment.start_ours("scheduler", main=mains.impatient_scheduler)
    deployment.product.sandbox.switch(async_execute_seconds=4.0)  # so that a run that pushes has to be woken
    deployment.syncs(*BINDINGS[0])
