"""Sources, destinations and bindings at the door; nothing here asks a vendor."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from cli.config_file import timing
from cli.config_file.secret_sources import read_secret
from models.database import Database
from models.errors import ConfigurationError
from models.naming import find
from models.setup import sources
from models.tables import AmplitudeProject, AuditEvent, CohortBinding, Destination
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import COMMAND, Door
from tests.support import environment

SUBDOMAIN = "mc563885gzs27c5t9-63k636ttgm"
API, SECRET = "api-hunter2", "secret-hunter2"


@pytest.fixture
def door(sqlite_db: Database, tmp_path: Path) -> Door:
    return Door(sqlite_db.settings, tmp_path)


@pytest.fixture
def bound(sqlite_db: Database) -> Database:
    """A source and a destination, ready to bind."""
    make_source(sqlite_db, "shop")
    make_destination(sqlite_db, "mc")
    return sqlite_db


def test_a_source_from_its_first_to_its_last_day(door: Door, sqlite_db: Database, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    said = [
        door.ok(
            *("source", "add", "shop", "--api-key", "env:MY_KEY", "--secret-key", "file:secret", "--tier"),
            *("audiences", "--region", "eu", "--no-check", "--json"),
            MY_KEY=API,
        ),
        door.ok("source", "list"),
        door.ok("source", "show", "SHOP"),
        door.ok("source", "show", "1", "--json"),
    ]
    assert all("hunter2" not in one.out + one.err for one in said)
    today = datetime.now(UTC).date().isoformat()
    assert f"set (since {today})" in said[2].out
    assert said[3].json == said[0].json
    assert said[0].json["api_key"] == {"set": True, "since": today}
    assert (said[0].json["tier"], said[0].json["region"]) == ("audiences", "eu")
    with sqlite_db.read() as session:
        row = find(session, AmplitudeProject, "shop")
        assert sqlite_db.keyring.decrypt(row.api_key_token).get_secret_value() == API
        assert sqlite_db.keyring.decrypt(row.secret_key_token).get_secret_value() == SECRET
        assert all("hunter2" not in str(event.details) for event in session.scalars(select(AuditEvent)))

    door.ok(
        "source",
        "update",
        "shop",
        "--name",
        "store",
        "--api-key",
        "a literal one",
        "--no-check",
        "--yes",
        "--tier",
        "growth",
    )
    usage = door.ok("source", "usage", "store", "--local", "--json").json
    assert (usage["spent"], usage["quota"], usage["left"]) == (0, 500, 500)
    with sqlite_db.read() as session:
        row = find(session, AmplitudeProject, "store")
        assert sqlite_db.keyring.decrypt(row.api_key_token).get_secret_value() == "a literal one"
    assert door.ok("source", "remove", "store", "--yes", "--json").json == {"id": 1, "name": "store"}
    assert door.ok("source", "list", "--json").json == []
    assert "no source yet" in door.ok("source", "list").out


def test_a_secret_that_cannot_be_read_changes_nothing(
    door: Door, sqlite_db: Database, tmp_path: Path
) -> None:
    said = door("source", "add", "shop", "--secret-key", SECRET, "--json")
    assert (said.code, said.error) == (2, "SECRET_UNREADABLE")
    assert "no terminal" in said.json["error"]["message"]
    with sqlite_db.read() as session:
        assert session.scalars(select(AmplitudeProject)).all() == []
    (tmp_path / "empty").touch()
    for reference in ("env:NOT_SET_AT_ALL", f"file:{tmp_path}/nowhere", f"file:{tmp_path}/empty", "file:\0"):
        with pytest.raises(ConfigurationError, match="SECRET_UNREADABLE"):
            read_secret("API key", reference)


@pytest.mark.parametrize(
    ("secret", "position"),
    [
        ("\ufeffabc", 1),
        ("ab\u200bc", 3),
        ("abc\u2060", 4),
        (" a\u00adb\n", 3),
        ("a\u00a0b", 2),
        ("abc\u200e", 4),
        ("a\tb", 2),
        ("ab\ncd", 3),
        ("a\U000e0041b", 2),
    ],
)
def test_a_secret_with_a_character_that_nobody_sees_is_refused_by_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, position: int
) -> None:
    file = tmp_path / "secret"
    file.write_text(secret if position > 1 else f"\ufeff{secret}", encoding="utf-8", newline="")
    monkeypatch.setenv("A_SECRET", secret)
    for reference in (secret, "env:A_SECRET", f"file:{file}"):
        with pytest.raises(ConfigurationError, match=f"SECRET_INVISIBLE: .* position {position}") as caught:
            read_secret("API key", reference)
        assert secret.strip() not in str(caught.value)
    for mark in ("", "\ufeff"):
        file.write_text(f"{mark}s\u00e9cret 1\r\n", encoding="utf-8", newline="")
        assert read_secret("API key", f"file:{file}").get_secret_value() == "s\u00e9cret 1"


def test_a_secret_is_asked_for_and_not_shown_on_a_terminal(sqlite_db: Database, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "source", "add", "shop", "--no-check", "--secret-key", SECRET],
        cwd=tmp_path,
        env=environment(sqlite_db.settings),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        shown = b""
        while b"API key: " not in shown:  # the blank comes when echoing is off
            shown += os.read(ours, 1000)
        os.write(ours, API.encode() + b"\n")
        assert process.wait(20) == 0
        os.close(theirs)
        with_rest = shown + _rest(ours)
    assert b"is added" in with_rest
    assert b"hunter2" not in with_rest
    with sqlite_db.read() as session:
        row = find(session, AmplitudeProject, "shop")
        assert sqlite_db.keyring.decrypt(row.api_key_token).get_secret_value() == API


def _rest(terminal: int) -> bytes:
    found = b""
    try:
        while block := os.read(terminal, 1000):
            found += block
    except OSError:  # the other side is closed
        pass
    os.close(terminal)
    return found


def test_a_destination_and_the_subdomain_alone(door: Door, sqlite_db: Database) -> None:
    add = ("destination", "add", "mc", "--client-id", "env:MY_ID", "--client-secret", SECRET)
    more = ("--contact-key-property", "user_id", "--no-check", "--json")
    said = door(
        *add, "--subdomain", f"https://{SUBDOMAIN}.auth.marketingcloudapis.com/", *more, MY_ID="package"
    )
    assert (said.code, said.error) == (2, "SUBDOMAIN_INVALID")
    assert SUBDOMAIN in said.json["error"]["remedy"]
    with sqlite_db.read() as session:
        assert session.scalars(select(Destination)).all() == []

    made = door.ok(
        *add, "--subdomain", SUBDOMAIN, "--client-secret-made-on", "2026-01-31", *more, MY_ID="package"
    ).json
    assert (made["client_id"], made["client_secret"]["since"]) == ("package", "2026-01-31")
    assert made["data_extension"] is None
    assert "set (since 2026-01-31)" in door.ok("destination", "show", "mc").out
    changed = door.ok(
        *("destination", "update", "mc", "--account-id", "7001", "--client-secret", "new"),
        *("--no-check", "--yes", "--json"),
    )
    assert changed.json["account_id"] == "7001"
    assert changed.json["client_secret"]["since"] == datetime.now(UTC).date().isoformat()
    assert door("destination", "update", "mc", "--account-id", "MID").code == 2
    assert [one["name"] for one in door.ok("destination", "list", "--json").json] == ["mc"]
    assert door.ok("destination", "list").out.count("mc563885") == 1
    door.ok("destination", "remove", "mc", "--yes")


def _add(door: Door, name: str, *more: str) -> Any:
    return door(
        *("binding", "add", name, "--source", "shop", "--cohort", "abc123", "--destination", "mc"),
        *("--no-check", "--json", *more),
    )


def test_a_binding_from_its_first_to_its_last_day(door: Door, bound: Database) -> None:
    now = datetime.now(UTC)
    made = _add(
        door,
        *("vips", "--attribute", "VIP", "--cron", "0 6 * * *", "--timezone", "Europe/Berlin"),
        *("--catchup-window", "6h", "--jitter", "10m", "--overlap", "queue", "--max-removal-percent", "20"),
    ).json
    plan = made["schedule"]
    assert (plan["cron"], plan["timezone"], plan["overlap"]) == ("0 6 * * *", "Europe/Berlin", "queue")
    assert (plan["catchup_window_seconds"], plan["jitter_seconds"]) == (21_600, 600)
    occurrence, due = (datetime.fromisoformat(plan[key]) for key in ("next_occurrence", "next_due_at"))
    assert timedelta() < occurrence - now <= timedelta(hours=25)
    assert timedelta() <= due - occurrence <= timedelta(seconds=600)
    assert (made["source"], made["destination"], made["cohort"]) == ("shop", "mc", "abc123")
    assert "at 06:00, every day (Europe/Berlin)" in door.ok("binding", "list").out
    assert "20 %" in door.ok("binding", "show", "vips").out

    # Renamed, it keeps what was not given, and its place in the jitter is the new name's.
    changed = door.ok("binding", "update", "vips", "--name", "best", "--cron", "30 7 * * *", "--json").json
    assert changed["schedule"] | {"next_occurrence": 0, "next_due_at": 0} == plan | {
        "cron": "30 7 * * *",
        "next_occurrence": 0,
        "next_due_at": 0,
    }
    with bound.read() as session:
        row = find(session, CohortBinding, "best")
        again = timing.timing_of(row, row.next_occurrence - timedelta(seconds=1))
        assert (row.next_occurrence, row.next_due_at) == (again.next_occurrence, again.next_due_at)

    assert door.ok("binding", "pause", "best", "--reason", "a campaign", "--json").json["paused"] is True
    assert "a campaign" in door.ok("binding", "show", "best").out
    assert door.ok("binding", "resume", "best", "--json").json["paused"] is False
    assert door.ok("binding", "update", "best", "--on-demand", "--json").json["schedule"] is None
    assert door("binding", "update", "best", "--on-demand", "--cron", "0 6 * * *").code == 2
    assert "flags in Marketing Cloud stay" in door.ok("binding", "remove", "best", "--yes").out
    assert door.ok("binding", "list", "--json").json == []


def test_the_rules_of_the_domain_are_refused_by_name_and_change_nothing(door: Door, bound: Database) -> None:
    make_source(bound, "small", tier="growth")
    make_binding(bound, "first", source="shop", destination="mc", attribute="VIP")
    refused = {
        "ATTRIBUTE_TAKEN": ("--attribute", "vip"),
        "CRON_INVALID": ("--attribute", "B", "--cron", "61 * * * *"),
        "TIMEZONE_INVALID": ("--attribute", "B", "--timezone", "Mars/Base"),
        "PLAN_ON_DEMAND_ONLY": ("--attribute", "B", "--source", "small", "--cron", "@daily"),
        "SETTING_INVALID": ("--attribute", "B", "--catchup-window", "soon"),
        "NOT_FOUND": ("--attribute", "B", "--source", "nowhere"),
    }
    for code, more in refused.items():
        said = _add(door, "second", *more)
        assert (said.code, said.error) == (2, code)
    said = _add(door, "FIRST", "--attribute", "B")
    assert (said.code, said.error) == (2, "NAME_TAKEN")
    assert door("source", "remove", "shop", "--yes", "--json").error == "IN_USE"
    assert [one["name"] for one in door.ok("binding", "list", "--json").json] == ["first"]


def test_a_source_keeps_the_date_of_its_keys_when_it_is_renamed(door: Door, sqlite_db: Database) -> None:
    make_source(sqlite_db, "shop", now=datetime(2026, 1, 1, tzinfo=UTC))
    show = ("source", "show", "1", "--json")
    assert door.ok(*show).json["secret_key"]["since"] == "2026-01-01"
    given: dict[str, Any]
    for day, given in (
        (2, {"api_key": SecretStr("another")}),
        (3, {"new_name": "store"}),
        (4, {"monthly_quota": 7}),
    ):
        with sqlite_db.write() as session:
            sources.update_source(
                session,
                sqlite_db.keyring,
                "1",
                now=datetime(2026, 1, day, tzinfo=UTC),
                actor="test",
                **given,
            )
        shown = door.ok(*show).json
        assert (shown["api_key"]["since"], shown["secret_key"]["since"]) == ("2026-01-02", "2026-01-02")
    assert shown["name"] == "store"


def test_a_binding_moves_until_its_first_sync(door: Door, bound: Database) -> None:
    make_source(bound, "small", tier="growth")
    make_destination(bound, "other", subdomain="other")
    make_binding(bound, "taken", source="shop", destination="other", attribute="VIP")
    _add(door, "vips", "--attribute", "VIP", "--cron", "@daily", "--max-removal-percent", "5")
    move = ("binding", "update", "vips", "--no-check", "--json")
    assert door(*move, "--source", "small").error == "PLAN_ON_DEMAND_ONLY"
    assert door(*move, "--destination", "other").error == "ATTRIBUTE_TAKEN"
    moved = door.ok(
        *move, "--source", "small", "--on-demand", "--destination", "other", "--attribute", "B"
    ).json
    assert (moved["source"], moved["destination"], moved["attribute"]) == ("small", "other", "B")
    assert moved["max_removal_percent"] == 5
    assert door.ok(*move, "--max-removal-percent", "default").json["max_removal_percent"] is None
    for wrong in ("101", "-1", "half"):
        assert door(*move, "--max-removal-percent", wrong).error == "SETTING_INVALID"
    assert door.ok("run", "vips", "--json", "--queue").json["state"] == "queued"
    assert door(*move, "--source", "shop").error == "RUN_UNFINISHED"
    with bound.write() as session:
        find(session, CohortBinding, "vips").attribute_locked_at = datetime.now(UTC)
    for option, value in (("source", "shop"), ("destination", "mc"), ("attribute", "C"), ("cohort", "xyz")):
        said = door(*move, f"--{option}", value)
        assert (said.error, f"its {option} can" in said.json["error"]["message"]) == (
            "ATTRIBUTE_LOCKED",
            True,
        )


def test_two_destinations_that_become_one_business_unit_share_its_attributes(
    door: Door, bound: Database
) -> None:
    make_destination(bound, "other", subdomain="other")
    for name, destination in (("first", "mc"), ("second", "other")):
        make_binding(bound, name, source="shop", destination=destination, attribute="VIP")
    said = door("destination", "update", "other", "--subdomain", SUBDOMAIN, "--json")
    assert (said.code, said.error) == (2, "ATTRIBUTE_TAKEN")
    assert door.ok("destination", "show", "other", "--json").json["subdomain"] == "other"


def test_a_tier_without_schedules_is_refused_while_bindings_run_by_themselves(
    door: Door, bound: Database
) -> None:
    _add(door, "first", "--attribute", "A", "--cron", "@daily")
    make_source(bound, "more")
    _add(door, "second", "--attribute", "B", "--source", "more", "--after", "first")
    said = door("source", "update", "more", "--tier", "growth", "--json")
    assert (said.code, said.error) == (2, "PLAN_ON_DEMAND_ONLY")
    assert "run by themselves: second." in said.json["error"]["message"]


def test_lengths_of_time() -> None:
    assert [timing.seconds("x", given) for given in ("0", "90", "90s", "15m", "6h", "2d")] == [
        *(0, 90, 90, 900, 21_600, 172_800)
    ]
    assert [timing.length(given) for given in (0, 90, 900, 21_600)] == ["0s", "90s", "15m", "6h"]
    for wrong in ("", "-1", "1.5h", "1w", "9999999999", "400d"):
        with pytest.raises(ConfigurationError):
            timing.seconds("x", wrong)
