"""`cohort-sync notices`: what is open, what was told to whom, and whether a message gets through."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from models.database import Database
from models.setup import bindings
from models.setup.bindings import Timing
from monitor.alert_loop import AlertLoop
from tests.ears import PASSWORD, Ear
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def ear() -> Iterator[Ear]:
    found = Ear()
    yield found
    found.vanish()


@pytest.fixture
def door(sqlite_db: Database, tmp_path: Path) -> Door:
    return Door(sqlite_db.settings, tmp_path)


def test_what_is_open_and_what_was_told(door: Door, sqlite_db: Database, ear: Ear) -> None:
    assert door.ok("notices").out == "No notices.\n"
    make_source(sqlite_db)
    make_destination(sqlite_db, client_secret_made_on=NOW.date())
    for name in ("buyers", "vips"):
        make_binding(sqlite_db, name)
    settings = sqlite_db.settings.model_copy(update={"notify_urls": SecretStr(ear.url)})
    watchman = AlertLoop(settings, sqlite_db)
    for second in range(0, 400, 10):
        with sqlite_db.write() as session:
            if second == 0:
                bindings.pause_binding(session, "buyers", reason="a campaign", now=NOW, actor="worker")
            if second == 60:
                bindings.resume_binding(session, "buyers", timing=Timing(), now=NOW, actor="test")
                bindings.pause_binding(session, "vips", reason="no idea", now=NOW, actor="worker")
        watchman.look(NOW + second * SECOND, 1)

    (one,) = door.ok("notices", "--json").json
    assert (one["about"], one["code"], one["ended_at"]) == ("vips", "PAUSED", None)
    newest, oldest = door.ok("notices", "--all", "--json").json
    assert newest == one
    assert (oldest["began_at"], oldest["ended_at"]) == (
        "2026-03-02T12:00:00.000Z",
        "2026-03-02T12:01:00.000Z",
    )
    assert oldest["told"] == [
        {
            "channel": "json://127.0.0.1",
            "told_at": "2026-03-02T12:00:30.000Z",
            "reminded_at": None,
            "end_told_at": "2026-03-02T12:05:30.000Z",
            "given_up_at": None,
        }
    ]
    said = door.ok("notices", "--all").out
    assert "! vips: PAUSED: Binding 'vips' is paused: no idea." in said
    assert "json://127.0.0.1 told 2026-03-02 12:00 UTC, its end 2026-03-02 12:05 UTC" in said
    assert len(door.ok("notices", "--all", "--limit", "1", "--json").json) == 1


def test_a_test_message_through_each_url(door: Door, ear: Ear) -> None:
    gone = Ear()
    gone.vanish()
    assert door.ok("notices", "--test", COHORT_SYNC_NOTIFY_URLS=ear.url).code == 0
    assert ear.titles == ["cohort-sync: a test"]
    both = f"{ear.url}\n{gone.url}"
    said = door("notices", "--test", "--json", COHORT_SYNC_NOTIFY_URLS=both)
    assert said.code == 5
    assert said.json == [
        {"channel": "json://127.0.0.1", "arrived": True},
        {"channel": "json://127.0.0.1", "arrived": False},
    ]
    said = door("notices", "--test", COHORT_SYNC_NOTIFY_URLS=both, COHORT_SYNC_LOG_LEVEL="DEBUG")
    assert PASSWORD not in said.out + said.err
    assert door("notices", "--test").code == 5, "there is nobody to be told"


@pytest.mark.parametrize("command", [("notices", "--test"), ("up",), ("monitor",)])
def test_a_url_that_can_not_be_used_is_named_by_its_scheme_alone(door: Door, command: tuple[str]) -> None:
    urls = f"nosuch://{PASSWORD}/x slack://{PASSWORD} {PASSWORD}"
    said = door(*command, COHORT_SYNC_NOTIFY_URLS=urls, COHORT_SYNC_MONITOR_PORT="0")
    assert said.code == 2
    expected = ("SETTINGS_INVALID", "nosuch://", "slack://", "number 3 is no URL")
    assert all(part in said.err for part in expected), said.err
    assert PASSWORD not in said.out + said.err
