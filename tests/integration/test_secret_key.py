"""A wrong key harms nothing, and a key is changed without a moment in which something can't be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import select

from cli.stack.lock import DirectoryLock
from config.settings import Settings
from models import key_check
from models.database import Database
from models.errors import ConfigurationError
from models.observability import alerts
from models.runs import lifecycle
from models.secrets import KEY_FILE
from models.tables import AmplitudeProject, AuditEvent, CohortBinding, Destination, SyncRun
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door
from worker.claim import work
from worker.context import open_context
from worker.stages.snapshot import snapshot

PROCESSES = ("up", "worker", "scheduler", "receiver", "flower", "monitor")


def new_key() -> str:
    return Fernet.generate_key().decode()


def under(settings: Settings, *keys: str) -> Settings:
    return settings.model_copy(update={"secret_key": [SecretStr(key) for key in keys]})


@pytest.fixture
def run_id(db: Database) -> int:
    """A run that waits to be taken."""
    make_source(db)
    make_destination(db)
    binding = make_binding(db)
    now = datetime.now(UTC)
    with db.write() as session:
        mine = session.get_one(CohortBinding, binding.id)
        given = {"trigger": Trigger.MANUAL, "scheduled_for": now, "now": now, "actor": "test"}
        return lifecycle.dispatch(session, mine, **given).id


def test_no_process_starts_with_another_key(db: Database, run_id: int, tmp_path: Path) -> None:
    door = Door(under(db.settings, new_key()), tmp_path)
    for name in PROCESSES:
        said = door(name, COHORT_SYNC_FLOWER_PORT="0", COHORT_SYNC_MONITOR_PORT="0")
        assert said.code == 2, name
        assert "error SECRET_KEY_WRONG" in said.err, name
    for words in (
        ["source", "add", "more", "--api-key", "a", "--secret-key", "b", "--json"],
        ["source", "webhook", "amplitude", "--json"],
    ):
        said = door(*words)
        assert (said.code, said.error) == (2, "SECRET_KEY_WRONG")
    with db.read() as session:
        run = session.get_one(SyncRun, run_id)
        assert (run.state, run.fence, run.error_code) == (RunState.QUEUED, 0, None)
        assert session.scalar(select(AmplitudeProject.name).where(AmplitudeProject.name == "more")) is None


def test_a_run_that_meets_it_waits_and_says_so(stack: Settings, db: Database, run_id: int) -> None:
    wrong = open_context(under(stack, new_key()))
    right = open_context(stack)
    for _ in range(3):
        work(wrong, run_id, Stage.SNAPSHOT, snapshot)
        with db.write() as session:
            run = session.get_one(SyncRun, run_id)
            assert (run.state, run.attempt, run.error_code) == (RunState.WAITING, 0, "SECRET_KEY_WRONG")
            found = alerts.current(session, datetime.now(UTC), schedulers=1)
            assert ("run", run_id, "SECRET_KEY_WRONG") in {one.key for one in found}
            run.wake_at = datetime.now(UTC) - timedelta(seconds=10)
    stages = list[str]()

    def stage(_hold: object) -> None:
        stages.append("here")

    work(right, run_id, Stage.SNAPSHOT, stage)  # type: ignore[arg-type]
    assert stages == ["here"]
    wrong.db.dispose()
    right.db.dispose()


@pytest.fixture
def filled(db: Database) -> Database:
    for n in range(5):
        make_source(db, f"source {n}")
        make_destination(db, f"destination {n}", subdomain=f"sub{n}")
    return db


def test_killed_half_way_both_keys_read_all(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (filled.settings.data_dir / KEY_FILE).read_text(), new_key()
    both = Database(under(filled.settings, new, old))
    monkeypatch.setattr(key_check, "ROWS_AT_ONCE", 2)
    pages = iter(range(3))
    real = key_check._rotate_some

    class Killed(Exception):  # noqa: N818 - what happened, not a fault
        pass

    def killed(*given: object) -> object:
        if next(pages, None) is None:
            raise Killed
        return real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(key_check, "_rotate_some", killed)
        with pytest.raises(Killed):
            key_check.rotate(both, now=datetime.now(UTC), actor="test")
    key_check.prove(both)
    for one in (old, new):
        lone = Database(under(filled.settings, one))
        with pytest.raises(ConfigurationError, match="SECRET_KEY_WRONG"):
            key_check.prove(lone)
        lone.dispose()
    left = key_check.rotate(both, now=datetime.now(UTC), actor="test")
    assert 0 < left < 15
    assert key_check.rotate(both, now=datetime.now(UTC), actor="test") == 0
    alone = Database(under(filled.settings, new))
    key_check.prove(alone)
    with alone.read() as session:
        tokens = session.scalars(select(Destination.client_secret_token))
        assert {alone.keyring.decrypt(one).get_secret_value() for one in tokens} == {"made-up-secret"}
    alone.dispose()
    both.dispose()


def test_the_command_changes_the_key_of_the_data_directory(sqlite_db: Database, tmp_path: Path) -> None:
    make_source(sqlite_db)
    door = Door(sqlite_db.settings, tmp_path)
    file = sqlite_db.settings.data_dir / KEY_FILE
    old = file.read_text()
    with DirectoryLock(sqlite_db.settings.data_dir):
        assert door("secrets", "rotate", "--json").error == "ALREADY_RUNNING"
    assert file.read_text() == old
    assert door.ok("secrets", "rotate", "--json").json == {"reencrypted": 2}
    assert file.read_text() != old
    assert "," not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    after = Database(sqlite_db.settings)
    key_check.prove(after)
    with after.read() as session:
        last = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
        assert last is not None
        assert (last.action, last.kind) == ("rotate", "secrets")
    after.dispose()


def test_configured_keys_are_the_persons_to_change(sqlite_db: Database, tmp_path: Path) -> None:
    make_source(sqlite_db)
    old, new = (sqlite_db.settings.data_dir / KEY_FILE).read_text(), new_key()
    door = Door(sqlite_db.settings, tmp_path)
    assert door("secrets", "rotate", "--json", COHORT_SYNC_SECRET_KEY=old).error == "SECRET_KEY_ALONE"
    assert door.ok("secrets", "rotate", "--json", COHORT_SYNC_SECRET_KEY=f"{new},{old}").json == {
        "reencrypted": 2
    }
    assert door("secrets", "rotate", "--json", COHORT_SYNC_SECRET_KEY=f"{old},{new_key()}").error == (
        "SECRET_KEY_WRONG"
    )
