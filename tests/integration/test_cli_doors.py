"""Sources and destinations are stored if their vendor takes the credentials; what is typed wrong is named at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from config.settings import unknown
from models.database import Database
from models.tables import AmplitudeProject, AuditEvent, Destination
from tests.contract.sandboxed import Sandbox, running
from tests.integration.door import Door, Said
from tests.support import Valkey

AWAY = "http://127.0.0.1:1"
SECRETS = {
    "KEY": "sandbox-api-key",
    "SECRET": "sandbox-secret-key",
    "CLIENT": "sandbox-client-secret",
    "WRONG": "wrong-wrong-wrong",
}


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with running("--members=40") as sandbox:
        yield sandbox


@pytest.fixture
def door(sqlite_db: Database, valkey: Valkey, vendors: Sandbox, tmp_path: Path) -> Door:
    vendors.reset()
    addresses = {"amplitude_base_url": vendors.url, "marketing_cloud_auth_url": vendors.url}
    made = Door(sqlite_db.settings.model_copy(update=addresses | {"redis_url": valkey.url}), tmp_path)
    made.environment |= SECRETS | {
        "COHORT_SYNC_AMPLITUDE_BASE_URL": vendors.url,
        "COHORT_SYNC_MARKETING_CLOUD_AUTH_URL": vendors.url,
        "COHORT_SYNC_REDIS_URL": valkey.url,
    }
    return made


def source(door: Door, secret: str, *more: str, **env: str) -> Said:
    keys = ("--api-key", "env:KEY", "--secret-key", f"env:{secret}")
    return door("source", "add", "shop", *keys, *more, "--json", **env)


def destination(door: Door, secret: str, *more: str, **env: str) -> Said:
    return door(
        *("destination", "add", "mc", "--subdomain", "mc563885gzs27c5t9-63k636ttgm"),
        *("--client-id", "sandbox-client-id", "--client-secret", f"env:{secret}"),
        *("--contact-key-property", "user_id", *more, "--json"),
        **env,
    )


def stored(db: Database) -> tuple[int | None, ...]:
    with db.read() as session:
        tables = (AmplitudeProject, Destination, AuditEvent)
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in tables)


def test_credentials_that_a_vendor_refuses_are_not_stored(
    door: Door, sqlite_db: Database, vendors: Sandbox
) -> None:
    for said, code in (
        (source(door, "WRONG"), "AMPLITUDE_CREDENTIALS"),
        (destination(door, "WRONG"), "MC_CREDENTIALS"),
    ):
        assert (said.code, said.error) == (2, code)
    assert stored(sqlite_db) == (0, 0, 0)
    asked = [line["path"] for line in vendors.door("GET", "requests")["requests"]]
    assert asked == ["/api/3/cohorts", "/v2/token"]
    assert vendors.door("GET", "state")["amplitude"]["downloads_used"] == 0
    assert source(door, "SECRET").code == destination(door, "CLIENT").code == 0
    assert stored(sqlite_db) == (1, 1, 2)


def test_an_update_with_wrong_credentials_leaves_the_right_ones(door: Door, sqlite_db: Database) -> None:
    assert source(door, "SECRET").code == destination(door, "CLIENT").code == 0
    for kind, name, option in (("source", "shop", "--secret-key"), ("destination", "mc", "--client-secret")):
        before = stored(sqlite_db)
        change = (kind, "update", name, option, "env:WRONG", "--yes")
        assert door(*change, "--json").error.endswith("_CREDENTIALS")
        assert stored(sqlite_db) == before
        door.ok(*change, "--no-check")
    door.ok("source", "update", "shop", "--name", "store", "--monthly-quota", "5")  # asks nobody
    with sqlite_db.read() as session:
        row = session.scalars(select(AmplitudeProject)).one()
        assert sqlite_db.keyring.decrypt(row.secret_key_token).get_secret_value() == SECRETS["WRONG"]


def test_a_vendor_that_is_away_refuses_and_no_check_stores(door: Door, sqlite_db: Database) -> None:
    away = {"COHORT_SYNC_AMPLITUDE_BASE_URL": AWAY, "COHORT_SYNC_MARKETING_CLOUD_AUTH_URL": AWAY}
    for said in (source(door, "SECRET", **away), destination(door, "CLIENT", **away)):
        assert (said.code, said.error) == (1, "VENDOR_UNASKED")
        assert "`--no-check`" in said.json["error"]["remedy"]
        assert said.err == ""
    assert stored(sqlite_db) == (0, 0, 0)
    assert source(door, "WRONG", "--no-check", **away).code == 0
    assert destination(door, "WRONG", "--no-check", **away).code == 0


def test_a_queue_that_is_away_is_named_with_the_way_past_it(door: Door, sqlite_db: Database) -> None:
    away = {"COHORT_SYNC_REDIS_URL": "redis://127.0.0.1:1/0"}
    for said in (source(door, "SECRET", **away), destination(door, "CLIENT", **away)):
        assert (said.code, said.error) == (1, "BROKER_NEEDED")
        assert "COHORT_SYNC_REDIS_URL" in said.json["error"]["remedy"]
        assert "`--no-check`" in said.json["error"]["remedy"]
    assert stored(sqlite_db) == (0, 0, 0)
    assert source(door, "SECRET", "--no-check", **away).code == 0


def test_apply_tries_credentials_that_no_binding_has_yet(door: Door, sqlite_db: Database) -> None:
    file = """version: 1
sources:
  shop: {api-key: "env:KEY", secret-key: "env:WRONG", tier: audiences}
"""
    said = door("apply", "-", "--json", stdin=file.encode())
    assert (said.code, said.error) == (5, "CHECKS_FAILED")
    assert said.json["error"]["mistakes"][0]["code"] == "AMPLITUDE_CREDENTIALS"
    assert said.json["error"]["mistakes"][0]["line"] == 3
    assert stored(sqlite_db) == (0, 0, 0)
    assert door("apply", "-", "--json", stdin=file.replace("WRONG", "SECRET").encode()).code == 0


def bind(door: Door, name: str, cohort: str, attribute: str, *more: str) -> Said:
    return door.ok(
        *("binding", "add", name, "--source", "shop", "--destination", "mc"),
        *("--cohort", cohort, "--attribute", attribute, *more, "--json"),
    )


def test_a_cohort_is_shown_by_its_name_once_amplitude_has_told_it(door: Door, vendors: Sandbox) -> None:
    source(door, "SECRET", "--no-check")
    destination(door, "CLIENT", "--no-check")
    vendors.door("PUT", "cohorts/purchrs", {"name": "Buyers\x1b[31m\n<b>"})
    shown = "Buyers [31m <b> (purchrs)"
    assert bind(door, "buyers", "purchrs", "Purchasers").json["cohort_name"] == "Buyers [31m <b>"
    assert bind(door, "churn", "churnrk", "Churn Risk", "--no-check").json["cohort_name"] is None
    for command in (("binding", "list"), ("status",), ("binding", "show", "buyers")):
        assert shown in door.ok(*command).out
    listed = {row["name"]: row for row in door.ok("binding", "list", "--json").json}
    assert [(row["cohort"], row["cohort_name"]) for row in listed.values()] == [
        ("purchrs", "Buyers [31m <b>"),
        ("churnrk", None),
    ]
    run = door("run", "buyers", "--json").json["id"]
    assert shown in door.ok("show", str(run)).out
    assert door.ok("show", str(run), "--json").json["cohort_name"] == "Buyers [31m <b>"
    door.ok("cancel", str(run))
    moved = door.ok("binding", "update", "buyers", "--cohort", "churnrk", "--yes", "--json").json
    assert moved["cohort_name"] == "Churn risk"
    moved = door.ok(
        "binding", "update", "buyers", "--cohort", "purchrs", "--yes", "--no-check", "--json"
    ).json
    assert moved["cohort_name"] is None


def test_apply_keeps_the_names_too(door: Door) -> None:
    file = """version: 1
sources:
  shop: {api-key: "env:KEY", secret-key: "env:SECRET", tier: audiences}
destinations:
  mc:
    subdomain: mc563885gzs27c5t9-63k636ttgm
    client-id: sandbox-client-id
    client-secret: "env:CLIENT"
    contact-key-property: user_id
bindings:
  buyers: {source: shop, destination: mc, cohort: purchrs, attribute: Purchasers}
"""
    door.ok("apply", "-", "--yes", stdin=file.encode())
    assert [row["cohort_name"] for row in door.ok("binding", "list", "--json").json] == ["Purchasers"]
    assert "Purchasers" not in door.ok("export").out.replace("attribute: Purchasers", "")


def test_a_secret_in_clear_is_warned_of_and_not_repeated(door: Door) -> None:
    said = door(
        "source", "add", "shop", "--api-key", SECRETS["KEY"], "--secret-key", f"{SECRETS['SECRET']}", "--json"
    )
    assert said.code == 0
    assert said.err.count("typed in clear") == 2
    assert "sandbox-" not in said.err
    assert source(door, "SECRET", "--no-check").err == ""


def test_a_variable_that_is_no_setting_is_named_with_the_one_that_is_meant(
    door: Door, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("COHORT_SYNC_WORKER_CONCURENCY=4\n")
    said = door.ok("source", "list", "--json", COHORT_SYNC_DATABSE_URL="x", COHORT_SYNC_XYZ="y")
    assert said.json == []
    assert said.err.splitlines() == [
        "warning: COHORT_SYNC_DATABSE_URL is not a setting, so it changes nothing. "
        "Did you mean COHORT_SYNC_DATABASE_URL?",
        "warning: COHORT_SYNC_WORKER_CONCURENCY is not a setting, so it changes nothing. "
        "Did you mean COHORT_SYNC_WORKER_CONCURRENCY?",
        "warning: COHORT_SYNC_XYZ is not a setting, so it changes nothing.",
    ]


def test_settings_and_handed_over_ports_are_known() -> None:
    assert unknown(["cohort_sync_data_dir", "COHORT_SYNC_FLOWER_FD", "PATH", "COHORT_SYNC_REDIS_URL"]) == {}
