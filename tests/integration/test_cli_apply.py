"""`apply` at the door: a file becomes what is set up, all of it or nothing, as the single commands would do it."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from models.database import Database
from models.naming import find
from models.tables import AmplitudeProject, AuditEvent, Base, CohortBinding, Destination
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import COMMAND, Door, Said

SUBDOMAIN = "mc563885gzs27c5t9-63k636ttgm"
SECRETS = {"AK": "api-hunter2", "SK": "secret-hunter2", "CS": "client-hunter2"}
HEAD = f"""\
version: 1
sources:
  shop:
    api-key: env:AK
    secret-key: env:SK
    tier: audiences
destinations:
  mc:
    subdomain: {SUBDOMAIN}
    client-id: package
    client-secret: env:CS
    contact-key-property: user_id
"""
BINDINGS = """\
bindings:
  second:
    source: shop
    cohort: def456
    destination: mc
    attribute: Second
    after: first
  first:
    source: shop
    cohort: abc123
    destination: mc
    attribute: First
    cron: 0 6 * * *
    timezone: Europe/Berlin
"""


@pytest.fixture
def door(db: Database, tmp_path: Path) -> Door:
    return Door(db.settings, tmp_path)


@pytest.fixture
def lone(sqlite_db: Database, tmp_path: Path) -> Door:
    """For what does not depend on the database."""
    return Door(sqlite_db.settings, tmp_path)


def apply(door: Door, text: str, *options: str, **env: str) -> Said:
    """The file applied without asking a vendor; no secret is ever said."""
    (door.cwd / "file.yaml").write_text(text)
    said = door("apply", "file.yaml", "--no-check", "--json", *options, **{**SECRETS, **env})
    assert "hunter2" not in said.out + said.err
    return said


def changes(said: Said) -> list[tuple[str, str]]:
    assert said.code == 0, said.out + said.err
    return [(one["action"], one["name"]) for one in said.json["changes"]]


def mistakes(said: Said) -> list[tuple[str, str]]:
    assert (said.code, said.error) == (2, "FILE_REFUSED"), said.out + said.err
    return [(one["path"], one["code"]) for one in said.json["error"]["mistakes"]]


def everything(db: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    with db.read() as session:
        return {
            table.name: sorted(map(str, session.execute(select(table))))
            for table in Base.metadata.sorted_tables
        }


def audit(db: Database) -> list[tuple[str, str, str, str]]:
    with db.read() as session:
        events = session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        return [(one.action, one.kind, one.name, str(sorted(one.details.items()))) for one in events]


def test_a_file_is_set_up_once_and_then_changes_nothing(door: Door, db: Database) -> None:
    planned = apply(door, HEAD + BINDINGS, "--dry-run")
    expected = [("add", name) for name in ("shop", "mc", "first", "second")]
    assert changes(planned) == expected
    assert planned.json["applied"] is False
    assert all(
        rows == [] for name, rows in everything(db).items() if name not in {"alembic_version", "schema_floor"}
    )

    assert changes(apply(door, HEAD + BINDINGS)) == expected
    before = everything(db)
    again = apply(door, HEAD + BINDINGS)
    assert (changes(again), again.json["applied"], len(again.json["unchanged"])) == ([], False, 4)
    assert everything(db) == before, "no audit line either"

    changed = apply(door, HEAD + BINDINGS.replace("0 6 * * *", "0  7 * * *").replace("Second", "Other"))
    assert [(one["name"], one["fields"]) for one in changed.json["changes"]] == [
        ("first", {"cron": {"old": "0 6 * * *", "new": "0 7 * * *"}}),
        ("second", {"attribute": {"old": "Second", "new": "Other"}}),
    ]
    shown = door.ok("binding", "show", "first", "--json").json
    assert shown["schedule"]["next_due_at"] == shown["schedule"]["next_occurrence"]
    assert ":00:00.000Z" in shown["schedule"]["next_due_at"]


def test_people_read_the_plan(lone: Door) -> None:
    def read(text: str, *options: str, **env: str) -> str:
        (lone.cwd / "file.yaml").write_text(text)
        said = lone.ok("apply", "file.yaml", "--no-check", *options, **SECRETS | env)
        assert "hunter2" not in said.out + said.err
        return said.out

    made = read(HEAD + BINDINGS)
    assert "+ source shop\n    api-key: given\n    secret-key: given\n    tier: audiences\n" in made
    assert made.endswith("Applied: 4 added, 0 changed, 0 removed, 0 unchanged.\n")
    one = HEAD + BINDINGS.partition("  first:")[0].replace("    after: first\n", "    cron: '@daily'\n")
    plan = read(one, "--dry-run", SK="another-hunter2")
    assert "~ source shop\n    secret-key: changed\n" in plan
    assert "~ binding second\n    cron: none → @daily\n    after: first → none\n" in plan
    assert "not in the file, left alone: binding first\n" in plan
    assert plan.endswith("Plan: 0 to add, 2 to change, 0 to remove, 1 unchanged. Nothing was changed.\n")
    assert "- binding first\n    members: 0 → none\n" in read(one, "--dry-run", "--prune")


def test_apply_leaves_what_the_single_commands_leave(
    door: Door, db: Database, sqlite_template: Path, tmp_path: Path
) -> None:
    """The same rows and the same audit lines, whichever way they came."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(sqlite_template, other / "cohort-sync.db")
    singly = Database(db.settings.model_copy(update={"data_dir": other, "database_url": ""}))
    hand = Door(singly.settings, tmp_path)
    bind = ("--source", "shop", "--destination", "mc", "--no-check")
    for command in (
        (
            *("source", "add", "shop", "--api-key", "env:AK", "--secret-key", "env:SK"),
            *("--tier", "audiences", "--no-check"),
        ),
        (
            *("destination", "add", "mc", "--subdomain", SUBDOMAIN, "--client-id", "package"),
            *("--client-secret", "env:CS", "--contact-key-property", "user_id", "--no-check"),
        ),
        (
            *("binding", "add", "first", "--cohort", "abc123", "--attribute", "First", *bind),
            *("--cron", "0 6 * * *", "--timezone", "Europe/Berlin"),
        ),
        (
            "binding",
            "add",
            "second",
            "--cohort",
            "def456",
            "--attribute",
            "Second",
            "--after",
            "first",
            *bind,
        ),
    ):
        hand.ok(*command, **SECRETS)
    apply(door, HEAD + BINDINGS)
    assert audit(db) == audit(singly)
    for command in (
        ("source", "update", "shop", "--monthly-quota", "100"),
        ("binding", "update", "first", "--cron", "0 7 * * *", "--jitter", "5m", "--blackout", "22:00-05:00"),
        ("binding", "update", "second", "--max-removal-percent", "5", "--feed", "webhook", "--no-check"),
    ):
        hand.ok(*command)
    text = HEAD.replace("tier:", "monthly-quota: 100\n    tier:")
    text += BINDINGS.replace("0 6 * * *", "0 7 * * *\n    jitter: 5m\n    blackout: 22:00-05:00")
    text = text.replace("after:", "max-removal-percent: 5\n    feed: webhook\n    after:")
    apply(door, text)
    assert audit(db) == audit(singly)
    unequal = {"created_at", "api_key_token", "secret_key_token", "client_secret_token"}
    unequal |= {"id", "project_id", "destination_id", "after_id"}  # PostgreSQL counts a draft's as well
    for table in (AmplitudeProject, Destination, CohortBinding):
        columns = [column for column in table.__table__.columns if column.name not in unequal]
        with db.read() as one, singly.read() as two:
            found, expected = (sorted(map(str, each.execute(select(*columns)))) for each in (one, two))
            assert found == expected
            assert found
    singly.dispose()


def test_a_secret_counts_as_changed_only_if_it_is_another(door: Door, db: Database) -> None:
    apply(door, HEAD)
    assert changes(apply(door, HEAD)) == []
    rotated = apply(door, HEAD, SK="new-hunter2", CS="newer-hunter2")
    assert [(one["name"], one["fields"]) for one in rotated.json["changes"]] == [
        ("shop", {"secret-key": "changed"}),
        ("mc", {"client-secret": "changed"}),
    ]
    with db.read() as session:
        row = find(session, AmplitudeProject, "shop")
        assert db.keyring.decrypt(row.secret_key_token).get_secret_value() == "new-hunter2"
        assert db.keyring.decrypt(row.api_key_token).get_secret_value() == "api-hunter2"
        assert find(session, Destination, "mc").client_secret_made_on == datetime.now(UTC).date()
        assert "hunter2" not in str(audit(db))
    # Without them, they stay; only a new source needs them.
    bare = "\n".join(line for line in HEAD.splitlines() if "env:" not in line)
    assert changes(apply(door, bare)) == []
    assert mistakes(apply(door, bare.replace("shop:", "new:"))) == [
        ("sources.new.api-key", "SETTING_MISSING"),
        ("sources.new.secret-key", "SETTING_MISSING"),
    ]
    unset = apply(door, HEAD.replace("env:SK", "env:NOT_SET"))
    assert mistakes(unset) == [("sources.shop.secret-key", "SECRET_UNREADABLE")]


def test_a_new_secret_is_as_old_as_the_file_says(lone: Door) -> None:
    dated = HEAD.replace(
        "client-secret: env:CS", "client-secret: env:CS\n    client-secret-made-on: 2026-01-31"
    )
    apply(lone, dated)
    assert [one["fields"] for one in apply(lone, dated, CS="new-hunter2").json["changes"]] == [
        {"client-secret": "changed"}
    ]
    assert lone.ok("destination", "show", "mc", "--json").json["client_secret"]["since"] == "2026-01-31"
    assert changes(apply(lone, dated, CS="new-hunter2")) == []


def test_everything_that_is_refused_is_told_at_once_and_nothing_is_changed(door: Door, db: Database) -> None:
    apply(door, HEAD + BINDINGS)
    make_source(db, "small", tier="growth")
    make_source(db, "other")
    make_binding(db, "theirs", source="other", destination="mc", attribute="Taken")
    with db.write() as session:
        for name in ("first", "second"):
            find(session, CohortBinding, name).attribute_locked_at = datetime.now(UTC)
    before = everything(db)
    said = apply(
        door,
        HEAD.replace("user_id", "email")
        + """\
bindings:
  first: {source: other, cohort: abc123, destination: mc, attribute: First}
  second: {source: shop, cohort: other1, destination: mc, attribute: Second, after: nobody}
  third: {source: small, cohort: x, destination: mc, attribute: Third, cron: '@daily'}
  fourth: {source: shop, cohort: x, destination: mc, attribute: taken}
  fifth: {source: shop, cohort: x, destination: mc, attribute: FIFTH, end: 2020-01-01}
  sixth: {source: shop, cohort: x, destination: nowhere, attribute: fifth, after: seventh}
  seventh: {source: shop, cohort: x, destination: mc, attribute: fifth, after: sixth}
  eighth: {source: shop, cohort: x, destination: mc, attribute: Eighth, start: 2030-02-01, end: 2030-01-01}
""",
    )
    assert (
        mistakes(said)
        == [
            ("destinations.mc.contact-key-property", "MAPPING_LOCKED"),
            ("bindings.first.source", "ATTRIBUTE_LOCKED"),
            ("bindings.second.after", "NOT_FOUND"),
            ("bindings.third.cron", "PLAN_ON_DEMAND_ONLY"),
            ("bindings.fourth.attribute", "ATTRIBUTE_TAKEN"),
            ("bindings.sixth.after", "CHAIN_CYCLE"),
            ("bindings.sixth.destination", "NOT_FOUND"),
            ("bindings.seventh.attribute", "ATTRIBUTE_TAKEN"),
            ("bindings.eighth", "SETTING_INVALID"),
        ]
        or said.json
    )
    assert everything(db) == before


def test_a_tier_may_change_with_the_schedules_that_it_allows(lone: Door) -> None:
    """Raised before them, lowered after them."""
    small = HEAD.replace("    tier: audiences\n", "")
    scheduled = HEAD + BINDINGS
    by_hand = small + BINDINGS.replace("    after: first\n", "").replace("    cron: 0 6 * * *\n", "")
    assert changes(apply(lone, small))
    assert changes(apply(lone, scheduled))[0] == ("update", "shop")
    assert changes(apply(lone, by_hand))[-1] == ("update", "shop")
    assert mistakes(apply(lone, small + BINDINGS)) == [
        ("bindings.second.after", "PLAN_ON_DEMAND_ONLY"),
        ("bindings.first.cron", "PLAN_ON_DEMAND_ONLY"),
    ]


def test_a_name_is_the_same_however_it_is_spelled(lone: Door) -> None:
    apply(lone, HEAD + BINDINGS)
    said = apply(
        lone, HEAD + BINDINGS.replace("  first:", "  First:").replace("source: shop", "source: SHOP")
    )
    assert [one["fields"] for one in said.json["changes"]] == [{"name": {"old": "first", "new": "First"}}]
    assert lone.ok("binding", "show", "second", "--json").json["after"] == "First"


def test_prune_removes_what_the_sections_do_not_name_and_no_more(door: Door, db: Database) -> None:
    apply(door, HEAD + BINDINGS)
    make_destination(db, "spare", subdomain="spare")
    kept = HEAD.replace("  mc:", "  spare:").replace(SUBDOMAIN, "spare") + "bindings: {}\n"
    left = apply(door, kept, "--dry-run")
    assert [one["name"] for one in left.json["left"]] == ["mc", "first", "second"]
    assert changes(left) == [("update", "spare")]

    unconfirmed = apply(door, kept, "--prune")
    assert (unconfirmed.code, unconfirmed.error) == (2, "PRUNE_UNCONFIRMED")
    assert "binding second" in unconfirmed.json["error"]["message"]
    assert len(door.ok("binding", "list", "--json").json) == 2

    # A section that is not there is not its business, and what others use can't go.
    only = apply(door, "version: 1\ndestinations: {}\n", "--prune", "--yes")
    assert mistakes(only) == [("destinations.mc", "IN_USE")]
    assert changes(apply(door, "version: 1\n", "--prune", "--yes")) == []

    gone = changes(apply(door, kept, "--prune", "--yes"))
    assert gone.index(("remove", "second")) < gone.index(("remove", "first")) < gone.index(("remove", "mc"))
    assert [door.ok(kind, "list", "--json").json for kind in ("binding",)] == [[]]
    assert [one["name"] for one in door.ok("destination", "list", "--json").json] == ["spare"]


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 130, 2)])
def test_a_removal_is_asked_for_on_a_terminal(lone: Door, answer: bytes, code: int, left: int) -> None:
    apply(lone, HEAD + BINDINGS)
    (lone.cwd / "file.yaml").write_text("version: 1\nbindings: {}\n")
    ours, theirs = pty.openpty()
    command = [COMMAND, "apply", "file.yaml", "--prune"]
    with subprocess.Popen(
        command,
        cwd=lone.cwd,
        env=lone.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, answer)
        assert process.wait(20) == code
    assert b"Remove binding second, binding first?" in b" ".join(shown.split())
    assert len(lone.ok("binding", "list", "--json").json) == left


def test_a_binding_renamed_in_the_middle_of_a_chain(door: Door) -> None:
    """The old one goes before the new one takes its attribute, and who ran after it runs after the new one."""
    apply(door, HEAD + BINDINGS)
    renamed = HEAD + BINDINGS.replace("  first:", "  newest:").replace("after: first", "after: newest")
    assert changes(apply(door, renamed, "--prune", "--yes")) == [
        ("remove", "first"),
        ("add", "newest"),
        ("update", "second"),
    ]
    assert door.ok("binding", "show", "second", "--json").json["after"] == "newest"
    assert changes(apply(door, renamed, "--prune")) == []


def test_an_unfinished_run_keeps_its_binding(lone: Door) -> None:
    apply(lone, HEAD + BINDINGS.replace("    after: first\n", ""))
    lone.ok("run", "second", "--queue")
    said = apply(lone, "version: 1\nbindings: {}\n", "--prune", "--yes")
    assert mistakes(said) == [("bindings.second", "RUN_UNFINISHED")]
    assert len(lone.ok("binding", "list", "--json").json) == 2


def test_the_quota_is_told_of_the_planned_state(door: Door) -> None:
    often = HEAD + BINDINGS.replace("0 6 * * *", "'*/30 * * * *'")
    planned, applied, again = apply(door, often, "--dry-run"), apply(door, often), apply(door, often)
    assert planned.json["warnings"] == applied.json["warnings"] == again.json["warnings"]
    (warning,) = planned.json["warnings"]
    assert (warning["code"], changes(again)) == ("QUOTA_FORECAST", [])
    assert "Source 'shop' would need" in warning["message"]
    assert "for 'first', run it" in warning["remedy"]
    assert "warning QUOTA_FORECAST" in planned.err
    assert (
        apply(door, often.replace("tier:", "monthly-quota: 9999\n    tier:"), "--dry-run").json["warnings"]
        == []
    )


def test_stdin_and_files_that_are_none(lone: Door) -> None:
    assert lone("apply", "nowhere.yaml", "--json").error == "FILE_UNREADABLE"
    assert lone("apply", ".", "--json").error == "FILE_UNREADABLE"
    (lone.cwd / "latin").write_bytes("version: 1 # ü".encode("latin-1"))
    said = lone("apply", "latin", "--json")
    assert (said.error, said.code) == ("FILE_UNREADABLE", 2)
    assert "not UTF-8" in said.json["error"]["message"]
    (lone.cwd / "bom").write_bytes(b"\xef\xbb\xbfversion: 1\r\n")
    assert changes(lone("apply", "bom", "--json")) == []
    assert mistakes(lone("apply", "-", "--json")) == [("version", "SETTING_MISSING")]  # stdin is empty
    piped = subprocess.run(
        [COMMAND, "apply", "-", "--no-check"],
        cwd=lone.cwd,
        env=lone.environment | SECRETS,
        input=HEAD,
        text=True,
        capture_output=True,
        check=True,
    )
    assert piped.stdout.endswith("Applied: 2 added, 0 changed, 0 removed, 0 unchanged.\n")
    (lone.cwd / "not").write_text("a: b: c")
    assert lone("apply", "not", "--json").error == "FILE_NOT_YAML"
