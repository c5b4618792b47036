"""The door to schedules: dates, blackouts, chains, the forecast, and what is said when the quota is too small."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.database import Database
from models.tables import Snapshot
from models.types import SnapshotKind, SnapshotState, Tier
from tests.factories import make_destination, make_source
from tests.integration.door import Door, Said
from tests.support import Valkey

NOW = datetime.now(UTC)


@pytest.fixture
def door(sqlite_db: Database, valkey: Valkey, tmp_path: Path) -> Door:
    make_source(sqlite_db, "shop")
    make_destination(sqlite_db, "mc", client_secret_made_on=NOW.date())
    return Door(sqlite_db.settings.model_copy(update={"redis_url": valkey.url}), tmp_path)


def add(door: Door, name: str, *options: str, cohort: str = "abc", source: str = "shop") -> Said:
    options = ("--source", source, "--cohort", cohort, "--destination", "mc", "--attribute", name, *options)
    return door("binding", "add", name, *options, "--no-check", "--json")


def test_dates_blackouts_and_chains_are_stored_shown_and_taken_away(door: Door) -> None:
    day = (NOW + timedelta(days=10)).date()
    said = add(
        door, "first", "--cron", "0 12 * * *", "--start", f"{day}", "--end", f"{day + timedelta(days=5)}",
        "--blackout", "22:00-06:00", "--blackout", "08:00-08:30",
    )  # fmt: skip
    assert said.code == 0, said.out + said.err
    first = said.json
    assert first["blackouts"] == ["22:00-06:00", "08:00-08:30"]
    assert (first["starts_on"], first["warnings"]) == (f"{day}", [])
    assert first["schedule"]["next_occurrence"] == f"{day}T12:00:00.000Z"
    assert add(door, "second", "--after", "first").json["after"] == "first"
    assert "after first" in door.ok("binding", "show", "second").out
    words = door.ok("binding", "list").out
    assert f"from {day}, to {day + timedelta(days=5)}, no push 22:00-06:00, 08:00-08:30 (UTC)" in words

    assert door("binding", "update", "first", "--after", "second", "--json").error == "CHAIN_CYCLE"
    assert door("binding", "remove", "first", "--yes", "--json").error == "IN_USE"
    changed = door.ok("binding", "update", "first", "--no-dates", "--no-blackout", "--json").json
    assert (changed["starts_on"], changed["ends_on"], changed["blackouts"]) == (None, None, [])
    assert door.ok("binding", "update", "second", "--on-demand", "--json").json["after"] is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--blackout", "22-6"), "SETTING_INVALID"),
        (("--blackout", "00:00-12:00", "--blackout", "12:00-24:00"), "SETTING_INVALID"),
        (("--cron", "0 6 * * *", "--start", "tomorrow"), "SETTING_INVALID"),
        (("--cron", "0 6 * * *", "--start", "2027-02-01", "--end", "2027-01-01"), "SETTING_INVALID"),
        (("--cron", "0 6 * * *", "--end", "2020-01-01"), "SETTING_INVALID"),
        (("--after", "nobody"), "NOT_FOUND"),
        (("--after", "x"), "NOT_FOUND"),
    ],
)
def test_what_makes_no_sense_is_refused(door: Door, options: tuple[str, ...], code: str) -> None:
    said = add(door, "y", *options)
    assert (said.code, said.error) == (2, code), said.out


def test_chain_needs_the_audiences_tier(door: Door, sqlite_db: Database) -> None:
    make_source(sqlite_db, "small", tier=Tier.GROWTH)
    add(door, "first", "--cron", "0 6 * * *")
    assert add(door, "second", "--after", "first", source="small").error == "PLAN_ON_DEMAND_ONLY"


def test_schedule_lists_what_comes_and_what_it_costs(door: Door) -> None:
    assert "Nothing runs by itself" in door.ok("schedule").out
    add(door, "a", "--cron", "0 */6 * * *")
    add(door, "b", "--cron", "2 */6 * * *")
    add(door, "c", "--after", "a", cohort="other")
    add(door, "d", "--cron", "0 */6 * * *", "--feed", "webhook", cohort="told")
    page = door.ok("schedule", "--days", "2", "--json").json
    costs = {name: {run["costs"] for run in page["runs"] if run["binding"] == name} for name in "abcd"}
    assert costs == {"a": {"download"}, "b": {"shared"}, "c": {"download"}, "d": {"none"}}
    (source,) = page["sources"]
    assert sum(month["to_come"] for month in source["months"]) == 16
    assert all(month["fits"] and month["quota"] == 500 for month in source["months"])
    text = door.ok("schedule", "--days", "31").out
    assert "(chained)" in text
    assert "more; `--json` has them all." in text
    assert "downloads spent" in text


def test_binding_that_passes_the_quota_is_told_what_would_fit(door: Door) -> None:
    assert add(door, "daily", "--cron", "0 6 * * *", cohort="abc").json["warnings"] == []
    said = add(door, "often", "--cron", "*/30 * * * *", cohort="abc")
    assert said.code == 0, "a warning, not a refusal"
    (warning,) = said.json["warnings"]
    assert warning["code"] == "QUOTA_FORECAST"
    assert "every 2 hours (--cron 'H */2 * * *')" in warning["remedy"]
    assert "share the downloads of 'daily' (--cron '0 6 * * *' --timezone UTC" in warning["remedy"]
    assert "--feed webhook" in warning["remedy"]
    assert "warning QUOTA_FORECAST" in said.err
    assert "more than the quota" in door.ok("schedule").out
    better = door.ok("binding", "update", "often", "--cron", "H */2 * * *", "--json")
    assert (better.json["warnings"], better.err) == ([], "")


def test_manual_run_past_the_quota_needs_force(door: Door, sqlite_db: Database) -> None:
    door.ok("source", "update", "shop", "--monthly-quota", "1")
    add(door, "a")
    with sqlite_db.write() as session:
        session.add(
            Snapshot(
                project_id=1,
                cohort_id="any",
                kind=SnapshotKind.DOWNLOAD,
                property="user_id",
                state=SnapshotState.COMPLETED,
                requested_at=NOW,
            )
        )
    refused = door("run", "a", "--json")
    assert (refused.code, refused.error) == (2, "AMPLITUDE_QUOTA")
    assert "--force" in refused.json["error"]["remedy"]
    once = ("run", "a", "--force", "--idempotency-key", "once", "--json")
    made = door.ok(*once).json
    assert made["state"] == "queued"
    assert door.ok(*(word for word in once if word != "--force")).json["id"] == made["id"], "it costs nothing"
    assert door("run", "a", "--force", "--json").error == "RUN_UNFINISHED"
    behind = door.ok("run", "a", "--force", "--queue", "--json").json
    assert behind["state"] == "deferred"
