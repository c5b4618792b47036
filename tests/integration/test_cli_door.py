"""What every command has in common: help, errors by name, exit codes, the schema, output that can be piped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import psycopg
import pytest
from alembic.script import ScriptDirectory

from cli import main, output
from cli.commands.setup import bindings, sources
from config.settings import Settings
from models import schema, types
from models.database import Database
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door, ended


@pytest.fixture
def door(settings: Settings, tmp_path: Path) -> Door:
    return Door(settings, tmp_path)


def test_help_lists_every_command_and_costs_little(door: Door) -> None:
    started = time.monotonic()
    with door.start("--help") as process:
        said = ended(process)
    assert time.monotonic() - started < 2  # 0.15 s on an idle machine; this one may be busy
    assert said.code == 0
    assert all(name in said.out for name in main.COMMANDS)
    with door.start("--version") as process:
        assert ended(process).out.startswith("cohort-sync 0.")


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_says_what_it_does_with_an_example(name: str) -> None:
    command = main.load(name)
    for one in getattr(command, "commands", {"": command}).values():
        assert "Example: " in one.help, one.name
        assert "cohort-sync " in one.help.partition("Example: ")[2], one.name


def test_usage_errors_exit_2_and_are_json_when_asked(door: Door) -> None:
    assert door("nonsense").code == 2
    assert door("run").code == 2
    said = door("source", "add", "x", "--tier", "gold", "--json")
    assert (said.code, said.error) == (2, "USAGE")
    assert "audiences" in said.json["error"]["message"]
    assert "Value error" not in said.out
    said = door("runs", "--limit", "x")
    assert said.err.splitlines() == [
        "error USAGE: Invalid value for '--limit': Input should be a valid integer",
        "what to do: Look at `cohort-sync runs --help`.",
    ]
    assert "Did you mean 'status'?" in door("stauts").err


def test_an_error_has_a_name_and_a_remedy(door: Door) -> None:
    said = door("source", "show", "nix")
    assert said.code == 2
    assert said.out == ""
    assert said.err.splitlines() == [
        "error NOT_FOUND: There is no source named 'nix'.",
        "what to do: List them with `cohort-sync source list`.",
    ]
    said = door("show", "7", "--json")
    assert (said.code, said.error, said.err) == (2, "NOT_FOUND", "")
    assert "`cohort-sync runs`" in said.json["error"]["remedy"]


def test_all_mistakes_of_the_settings_are_told_at_once_without_a_secret(door: Door) -> None:
    said = door(
        "status",
        COHORT_SYNC_TICK_SECONDS="-1",
        COHORT_SYNC_LOG_LEVEL="loud",
        COHORT_SYNC_AMPLITUDE_BASE_URL="ftp://x",
    )
    assert said.code == 2
    for name in ("TICK_SECONDS", "LOG_LEVEL", "AMPLITUDE_BASE_URL"):
        assert f"COHORT_SYNC_{name}" in said.err
    said = door("status", "--json", COHORT_SYNC_REDIS_URL="bogus://:hunter2@host")
    assert (said.code, said.error) == (2, "SETTINGS_INVALID")
    assert "hunter2" not in said.out + said.err
    said = door("runs", "--json", COHORT_SYNC_DATABASE_URL="mysql://me:hunter2@host/db")
    assert (said.code, said.error) == (2, "SETTING_INVALID")
    assert "hunter2" not in said.out + said.err
    said = door("runs", "--json", COHORT_SYNC_DATA_DIR="/dev/null/x")
    assert (said.code, said.error) == (2, "SETTINGS_INVALID")


def test_what_nobody_expected_is_named_and_traced_only_for_debugging(door: Door, settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "secret.key").write_bytes(b"\xff\xfe")  # no text
    said = door("runs", "--json")
    assert (said.code, said.error) == (1, "INTERNAL")
    with door.start("runs", env={"COHORT_SYNC_LOG_LEVEL": "DEBUG"}) as process:
        said = ended(process)
    assert said.code == 1
    assert "Traceback" in said.err


def test_sqlite_is_upgraded_by_whoever_comes_first(door: Door, settings: Settings) -> None:
    started = [door.start("runs", "--json") for _ in range(4)]
    for process in started:
        with process:
            said = ended(process)
            assert said.json == [], said.out
        assert process.returncode == 0
    database = Database(settings)
    schema.require_current(database)
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        session.connection().exec_driver_sql("UPDATE schema_floor SET oldest = '9999'")
    database.dispose()
    said = door("runs", "--json")
    assert (said.code, said.error) == (2, "DATABASE_NEWER")
    assert "newer version" in said.json["error"]["message"]
    assert "db upgrade" not in said.json["error"]["remedy"]


def test_postgresql_waits_for_a_person(settings: Settings, tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    url = postgres_url.replace("/postgres?", "/fresh?")
    door = Door(settings.model_copy(update={"database_url": url}), tmp_path)
    said = door("runs", "--json")
    assert (said.code, said.error) == (2, "DATABASE_SCHEMA")
    assert door.ok("db", "upgrade", "--json").json == {"schema": schema.head()}
    assert door.ok("runs", "--json").json == []
    said = door("runs", "--json", COHORT_SYNC_DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/x")
    assert (said.code, said.error) == (1, "DATABASE_UNREACHABLE")
    assert "hunter2" not in said.out


def test_the_head_is_the_one_alembic_finds(settings: Settings) -> None:
    database = Database(settings)
    assert schema.head() == ScriptDirectory.from_config(schema.config_for(database)).get_current_head()
    database.dispose()


def test_a_narrow_pipe_gets_every_value_whole(sqlite_db: Database, tmp_path: Path) -> None:
    name = "a rather long name that no table of forty columns could hold " + "x" * 30
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, name)
    said = Door(sqlite_db.settings, tmp_path).ok("binding", "list", COLUMNS="40")
    assert name in said.out
    assert "…" not in said.out


def test_a_reader_that_leaves_early_is_no_error(sqlite_db: Database, tmp_path: Path) -> None:
    make_source(sqlite_db)
    make_destination(sqlite_db)
    for n in range(20):
        make_binding(sqlite_db, f"binding {n} {'x' * 80}")
    with Door(sqlite_db.settings, tmp_path).start("binding", "list", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert ended(process).err == ""


def test_what_a_vendor_says_never_reaches_the_terminal_as_a_command() -> None:
    assert "\x1b" not in output.clean("a\x1b[2Jb\x07")
    assert output.clean("Käufer\nzwei") == "Käufer\nzwei"


def test_choices_are_those_of_the_tables() -> None:
    assert get_args(sources.RegionName) == tuple(types.Region)
    assert get_args(sources.TierName) == tuple(types.Tier)
    for name, choices in (("Overlap", ("skip", "queue")), ("Catchup", ("latest", "none"))):
        assert get_args(getattr(bindings, f"{name}Name")) == choices


def test_completion_reaches_the_commands_of_a_group(door: Door) -> None:
    said = door(_COHORT_SYNC_COMPLETE="complete_bash", COMP_WORDS="cohort-sync source ", COMP_CWORD="2")
    assert {"add", "list", "cohorts"} <= set(said.out.split())
