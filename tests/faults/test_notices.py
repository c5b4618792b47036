"""Notices where something dies, hangs or is away; and that neither a key nor a secret is ever told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from config.settings import Settings
from models.database import Database
from models.errors import TerminalError
from models.naming import find
from models.runs import claims, lifecycle
from models.setup import bindings
from models.tables import CohortBinding, NoticeChannel, Rejection
from models.types import RunState, Stage, Trigger
from monitor.alert_loop import AlertLoop
from tests import mains
from tests.ears import PASSWORD, Ear, listening
from tests.factories import make_binding, make_destination, make_source
from tests.forked import Forked
from tests.support import environment, wait_until

BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KEY = "seeded-contact-key@example.com"
API_KEY, SECRET_KEY, CLIENT_SECRET = "seeded-api-key-77", "seeded-secret-key-88", "seeded-client-secret-99"


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as found:
        yield found


@pytest.fixture
def filled(db: Database) -> Database:
    make_source(db, api_key=SecretStr(API_KEY), secret_key=SecretStr(SECRET_KEY))
    make_destination(db, client_secret=SecretStr(CLIENT_SECRET), client_secret_made_on=BEGAN.date())
    make_binding(db, "buyers")
    with db.write() as session:
        bindings.pause_binding(session, "buyers", reason="a campaign", now=BEGAN, actor="worker")
    return db


def settings_of(db: Database, *ears: Ear, **given: object) -> Settings:
    urls = SecretStr("\n".join(ear.url for ear in ears))
    return db.settings.model_copy(update={"notify_urls": urls, **given})


def looking(settings: Settings, cwd: Path, *seconds: int) -> Forked:
    """A watchman in a process of its own, at the instants it is given."""
    instants = [(BEGAN + second * SECOND).isoformat() for second in seconds]
    return Forked(
        mains.alert_loop, instants, cwd=cwd, env=environment(settings), stdout=cwd / "log", stderr=cwd / "log"
    )


def test_a_sender_that_is_killed_loses_nothing(filled: Database, ear: Ear, tmp_path: Path) -> None:
    settings = settings_of(filled, ear)
    ear.hold.clear()
    sender = looking(settings, tmp_path, 0, 30)
    wait_until(lambda: ear.asked, seconds=20)
    sender.kill()
    sender.wait()
    ear.status = 503  # what the dead one sent is lost
    ear.hold.set()
    other = AlertLoop(settings, Database(settings, patience=4))
    for second in range(40, 200, 10):
        if second == 100:
            ear.status = 200
            assert ear.asked == 1, "the dead one has the channel until its claim runs out"
        other.look(BEGAN + second * SECOND, 1)
    assert ear.titles == ["cohort-sync: 1 thing needs you"]


def test_the_end_of_what_may_have_been_heard_is_told(filled: Database, ear: Ear, tmp_path: Path) -> None:
    """It arrived, and its sender died before it could write that down."""
    settings = settings_of(filled, ear)
    ear.hold.clear()
    sender = looking(settings, tmp_path, 0, 30)
    wait_until(lambda: ear.asked, seconds=20)
    sender.kill()
    sender.wait()
    ear.hold.set()
    wait_until(lambda: ear.heard, seconds=5)
    with filled.write() as session:
        bindings.resume_binding(session, "buyers", timing=bindings.Timing(), now=BEGAN, actor="test")
    other = AlertLoop(settings, Database(settings, patience=4))
    for second in range(40, 200, 10):
        other.look(BEGAN + second * SECOND, 1)
    assert ear.titles == ["cohort-sync: 1 thing needs you", "cohort-sync: 1 thing is over"]


def test_a_database_that_is_away_is_told_from_memory_and_so_is_its_return(
    postgres_db: Database, postgres_url: str, ear: Ear
) -> None:
    watchman = AlertLoop(settings_of(postgres_db, ear), Database(postgres_db.settings, patience=4))
    name = postgres_db.engine.url.database
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            for second in range(0, 600, 10):
                watchman.look(BEGAN + second * SECOND, 1)
                assert len(ear.heard) == (second >= 60), second
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert ear.last == [
        "database: DATABASE_UNREACHABLE: The database does not answer. "
        "Check COHORT_SYNC_DATABASE_URL and that the server runs."
    ]
    for second in range(600, 700, 10):
        watchman.look(BEGAN + second * SECOND, 1)
    assert ear.titles == ["cohort-sync: 1 thing needs you", "cohort-sync: 1 thing is over"]
    assert ear.last == ["Over: database: DATABASE_UNREACHABLE (2026-03-02 12:00 to 2026-03-02 12:10 UTC)"]


def test_a_look_ends_in_time_whatever_hangs(filled: Database, ear: Ear) -> None:
    other = Ear()
    settings = settings_of(filled, ear, other)
    watchman = AlertLoop(settings, Database(settings, patience=4))
    watchman.look(BEGAN, 1)
    for one in (ear, other):
        one.hold.clear()
    began = time.monotonic()
    watchman.look(BEGAN + 30 * SECOND, 1)
    assert time.monotonic() - began < 15
    assert (ear.asked, other.asked) == (1, 1), "both at once"
    if filled.dialect == "postgresql":  # whoever reads is locked out
        with filled.write() as session:
            session.connection().exec_driver_sql("LOCK TABLE notice, cohort_binding")
            began = time.monotonic()
            watchman.look(BEGAN + 40 * SECOND, 1)
            assert time.monotonic() - began < 15
    other.hold.set()
    other.vanish()


def test_neither_a_key_nor_a_secret_is_told_or_logged(filled: Database, ear: Ear, tmp_path: Path) -> None:
    _ruin(filled)
    deaf, gone = Ear(), Ear()
    deaf.status = 500
    gone.vanish()
    settings = settings_of(filled, ear, deaf, gone, log_level="DEBUG", log_format="json")
    process = looking(settings, tmp_path, 0, 30, 60, 120, 300, 700, 740)
    assert process.wait(timeout=60) == 0
    log = (tmp_path / "log").read_text()
    assert "NOTIFY_FAILED" in log
    told = str(ear.heard)
    assert all(code in told for code in ("ROWS_REJECTED", "MC_SCOPES", "PAUSED", "NOTIFY_FAILED")), told
    with filled.read() as session:
        stored = [(row.digest, row.name) for row in session.query(NoticeChannel)]
    assert len(stored) == 3
    secrets = (KEY, API_KEY, SECRET_KEY, CLIENT_SECRET, PASSWORD, "/tell")
    for text in (log, told, str(stored)):
        assert [secret for secret in secrets if secret in text] == []
    deaf.vanish()


def _ruin(db: Database) -> None:
    """A partial run with a rejected key, and a failed one."""
    for name, state in (("partial", RunState.PARTIAL), ("failed", RunState.FAILED)):
        make_binding(db, name)
        with db.write() as session:
            binding = find(session, CohortBinding, name)
            run_id = lifecycle.dispatch(
                session, binding, trigger=Trigger.MANUAL, scheduled_for=BEGAN, now=BEGAN, actor="test"
            ).id
        held = claims.claim(db, run_id, Stage.SNAPSHOT, now=BEGAN, lease=60)
        assert held is not None
        with claims.fenced(db, held, now=BEGAN, lease=60) as (session, run):
            run.rejected = 1
            session.add(
                Rejection(
                    binding_id=run.binding_id,
                    run_id=run.id,
                    direction="enter",
                    code="X",
                    message=f"no such contact {KEY}",
                    key=KEY,
                    comparison_key=KEY,
                    first_seen=BEGAN,
                    last_seen=BEGAN,
                )
            )
            if state is RunState.FAILED:
                lifecycle.note_error(run, TerminalError("MC_SCOPES", missing="email_read"))
            lifecycle.finish(session, run, state, now=BEGAN)
