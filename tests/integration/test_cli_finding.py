"""Finding and following runs: filters, names in place of ids, a run taken up again, and names nearly right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.config_file.timing import moment
from config.settings import Settings
from models import broker
from models.database import Database
from models.errors import ConfigurationError
from models.naming import find
from models.runs import claims, lifecycle, stage_progress
from models.runs.stage_progress import StageProgress
from models.tables import CohortBinding, SyncRun
from models.types import RunState, Stage, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import COMMAND, Door, ended
from tests.support import Valkey

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def door(sqlite_db: Database, valkey: Valkey, tmp_path: Path) -> Door:
    settings: Settings = sqlite_db.settings.model_copy(update={"redis_url": valkey.url})
    make_source(sqlite_db)
    make_destination(sqlite_db)
    make_binding(sqlite_db, "vips")
    make_binding(sqlite_db, "buyers", attribute="Buyers")
    return Door(settings, tmp_path)


def made(db: Database, name: str, state: RunState, at: datetime) -> int:
    with db.write() as session:
        run = lifecycle.dispatch(
            session,
            find(session, CohortBinding, name),
            trigger=Trigger.MANUAL,
            scheduled_for=at,
            now=at,
            actor="test",
        )
        if state.finished:
            lifecycle.finish(session, run, state, now=at)
        return run.id


@pytest.fixture
def runs(door: Door, sqlite_db: Database) -> list[int]:
    del door
    now = datetime.now(UTC)
    return [
        made(sqlite_db, "vips", RunState.FAILED, now - timedelta(days=9)),
        made(sqlite_db, "vips", RunState.SUCCEEDED, now - timedelta(hours=3)),
        made(sqlite_db, "buyers", RunState.FAILED, now - timedelta(hours=2)),
        made(sqlite_db, "vips", RunState.QUEUED, now),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [3, 2, 1, 0]),
        (("vips",), [3, 1, 0]),
        (("--state", "failed"), [2, 0]),
        (("--state", "failed", "--state", "queued"), [3, 2, 0]),
        (("--since", "7d"), [3, 2, 1]),
        (("--since", "7d", "--until", "1h"), [2, 1]),
        (("--until", "2020-01-01"), []),
        (("--trigger", "schedule"), []),
        (("vips", "--trigger", "manual", "--limit", "1"), [3]),
    ],
)
def test_runs_are_filtered(
    door: Door, runs: list[int], options: tuple[str, ...], expected: list[int]
) -> None:
    found = [run["id"] for run in door.ok("runs", *options, "--json").json]
    assert found == [runs[n] for n in expected]


def test_a_filter_that_is_none_is_refused(door: Door) -> None:
    assert door("runs", "--state", "gone").code == 2
    said = door("runs", "--since", "yesterday", "--json")
    assert (said.code, said.error) == (2, "SETTING_INVALID")


def test_a_run_is_found_by_its_id_its_binding_and_as_the_latest(door: Door, runs: list[int]) -> None:
    for name, place in ((str(runs[0]), 0), ("vips", 3), ("buyers", 2), ("latest", 3)):
        assert door.ok("show", name, "--json").json["id"] == runs[place]
    for name in ("999", "9" * 30, "nobody"):
        said = door("show", name, "--json")
        assert (said.code, said.error) == (2, "NOT_FOUND")


@pytest.mark.parametrize("name", ["latest", "vips"])
@pytest.mark.parametrize(
    ("command", "becomes"), [("approve", "queued"), ("reject", "cancelled"), ("cancel", "cancelled")]
)
def test_the_run_that_is_held_is_meant_not_the_one_skipped_behind_it(
    door: Door, sqlite_db: Database, name: str, command: str, becomes: str
) -> None:
    now = datetime.now(UTC)
    held = made(sqlite_db, "vips", RunState.QUEUED, now)
    with sqlite_db.write() as session:
        lifecycle.hold(session.get_one(SyncRun, held), ConfigurationError("EMPTY_GUARD", members=5, run=held))
    with sqlite_db.write() as session:
        vips = find(session, CohortBinding, "vips")
        behind = {"trigger": Trigger.SCHEDULE, "scheduled_for": now, "created_at": now, "finished_at": now}
        session.add(SyncRun(binding=vips, state=RunState.SKIPPED, **behind))
    said = door.ok(command, name, "--json").json
    assert (said["id"], said["state"]) == (held, becomes)
    assert door.ok("show", name, "--json").json["state"] == "skipped"


@pytest.mark.parametrize("command", ["approve", "reject", "cancel", "watch", "show"])
def test_a_run_that_is_none_is_refused_alike_by_every_command(door: Door, command: str) -> None:
    for name in ("latest", "vips", "7", "nobody"):
        said = door(command, name, "--json")
        assert (said.code, said.error) == (2, "NOT_FOUND")


def test_a_name_nearly_right_is_answered_with_the_right_one(door: Door) -> None:
    said = door("binding", "show", "buyres", "--json")
    assert said.error == "NOT_FOUND"
    assert "Did you mean 'buyers'?" in said.json["error"]["message"]
    assert "Did you mean" not in door("binding", "show", "xyz", "--json").json["error"]["message"]


def completed(door: Door, *words: str, shell: str = "bash", **env: str) -> list[str]:
    asked = {"COMP_WORDS": " ".join(["cohort-sync", *words]), "COMP_CWORD": str(len(words))}
    said = door(_COHORT_SYNC_COMPLETE=f"complete_{shell}", **asked, **env)
    assert said.err == ""
    return [line for line in said.out.split("\n") if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("binding", "show", ""), ["buyers", "'many words'", "vips"]),
        (("run", "v"), ["vips"]),
        (("run", "ma"), ["'many words'"]),
        (("run", "'many w"), ["'many words'"]),
        (("runs", "b"), ["buyers"]),
        (("binding", "add", "x", "--source", ""), ["amplitude"]),
        (("binding", "update", "vips", "--destination", "m"), ["marketing"]),
        (("destination", "update", ""), ["marketing"]),
        (("runs", "--state", "he"), ["held"]),
        (("source", "add", ""), []),
    ],
)
def test_a_shell_completes_what_there_is(
    door: Door, sqlite_db: Database, words: tuple[str, ...], expected: list[str]
) -> None:
    make_binding(sqlite_db, "many words")
    assert completed(door, *words) == expected


# What a person types, and what the shell then has. Each begins with the script that the shell itself is given.
IN_SHELLS = {
    "bash": """
        source <(cohort-sync --show-completion)
        for typed in bu ma; do
            COMP_WORDS=(cohort-sync binding show $typed) COMP_CWORD=3
            _cohort_sync_completion cohort-sync
            printf '%s\\n' "${COMPREPLY[@]}"
        done""",
    "fish": """
        cohort-sync --show-completion | source
        complete -C "cohort-sync binding show bu"
        complete -C "cohort-sync binding show ma" """,
    # A terminal of its own, with what is typed into it. `-r -m` waits for the output.
    "zsh": """
        zmodload zsh/zpty
        zpty person zsh -f -i
        zpty -w person "PS1= ; autoload -Uz compinit; compinit -u; source <(cohort-sync --show-completion)"
        zpty -w person "echo rea''dy"
        zpty -r -m person seen '*ready*'
        for typed in bu ma; do
            zpty -w -n person "cohort-sync binding show $typed"$'\\t'
            zpty -w -n person $'\\n'
            zpty -r -m person seen '*added *'
            print -r -- ${${(f)seen}[(r)name *]}
        done""",
}


@pytest.mark.parametrize("shell", IN_SHELLS)
def test_the_script_works_in_the_shell(door: Door, sqlite_db: Database, shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell}")
    make_binding(sqlite_db, "many words")
    script = tmp_path / f"type.{shell}"
    script.write_text(textwrap.dedent(IN_SHELLS[shell]))
    made = {"HOME": str(tmp_path), "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}
    said = subprocess.run(
        [program, script],
        check=False,
        env=door.environment | made,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert said.stderr == ""
    found = [line.removeprefix("name").strip() for line in said.stdout.splitlines()]
    assert found == ["buyers", "'many words'" if shell == "bash" else "many words"]


def test_runs_are_completed_by_id_and_binding(door: Door, runs: list[int]) -> None:
    found = completed(door, "show", "")
    assert [*map(str, reversed(runs)), "latest", "buyers", "vips"] == found


def test_completion_without_a_usable_database_is_silent_and_makes_none(door: Door, tmp_path: Path) -> None:
    for env in (
        {"COHORT_SYNC_DATA_DIR": str(tmp_path / "nowhere")},
        {"COHORT_SYNC_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/x"},
        {"COHORT_SYNC_TICK_SECONDS": "soon"},
    ):
        assert completed(door, "binding", "show", "", **env) == []
        assert completed(door, "show", "", **env) == ["latest"]
    assert not (tmp_path / "nowhere").exists()


def test_short_names_of_commands(door: Door) -> None:
    assert door.ok("binding", "ls", "--json").json == door.ok("binding", "list", "--json").json
    assert " ls " not in door.ok("binding", "--help").out


def test_a_run_is_watched_from_where_it_is_to_its_end(
    door: Door, runs: list[int], sqlite_db: Database
) -> None:
    watching = door.start("watch", "vips", "--json")
    with sqlite_db.read() as session:
        assert session.get_one(SyncRun, runs[3]).state == RunState.QUEUED
    held = claims.claim(sqlite_db, runs[3], Stage.SNAPSHOT, now=datetime.now(UTC), lease=60)
    assert held is not None
    with claims.fenced(sqlite_db, held, now=datetime.now(UTC), lease=60) as (session, run):
        lifecycle.finish(session, run, RunState.PARTIAL, now=datetime.now(UTC))
    said = ended(watching)
    assert (said.code, said.json["state"]) == (3, "partial")


def test_a_watcher_is_told_once_what_a_stage_does_for_long(
    door: Door, runs: list[int], sqlite_db: Database
) -> None:
    """Without a terminal: the amount changes each second, and is no line of its own."""
    now = datetime.now(UTC)
    held = claims.claim(sqlite_db, runs[3], Stage.SNAPSHOT, now=now, lease=60)
    assert held is not None
    with claims.fenced(sqlite_db, held, now=now, lease=60) as (_, run):
        lifecycle.advance(run, Stage.DIFF, now=now)
    held = claims.claim(sqlite_db, runs[3], Stage.DIFF, now=now, lease=60)
    assert held is not None
    with broker.redis_client(door.environment["COHORT_SYNC_REDIS_URL"], seconds=5.0) as redis:
        watching = door.start("watch", "vips")
        assert watching.stderr is not None
        line = f"run {runs[3]} diff: reading the data extension\n"
        said: list[str] = []
        while line not in said:
            stage_progress.tell(
                redis, runs[3], held.fence, StageProgress("reading the data extension", len(said), 9)
            )
            said.append(watching.stderr.readline())
        for done in range(5, 9):
            stage_progress.tell(
                redis, runs[3], held.fence, StageProgress("reading the data extension", done, 9)
            )
            time.sleep(0.3)
    with claims.fenced(sqlite_db, held, now=now, lease=60) as (session, run):
        lifecycle.finish(session, run, RunState.SUCCEEDED, now=now)
    rest = watching.communicate(timeout=60)[1]
    assert watching.returncode == 0
    assert "reading" not in rest


def test_a_run_that_nobody_is_left_to_carry_on_is_not_waited_for(door: Door, runs: list[int]) -> None:
    impatient = "from cli.commands.runs import wait\nfrom cli.main import main\nimport sys\n"
    impatient += "wait.ALIVE_SECONDS, wait.STOPPED_SECONDS = 0.1, 0.5\nsys.exit(main(['watch', '--json']))\n"
    said = subprocess.run(
        [sys.executable, "-c", impatient],
        env=door.environment,
        cwd=door.cwd,
        capture_output=True,
        check=False,
    )
    error = json.loads(said.stdout)["error"]
    assert (said.returncode, error["code"]) == (1, "STACK_STOPPED")
    assert f"`cohort-sync watch {runs[3]}`" in error["remedy"]


def test_ctrl_c_says_that_the_run_continues_and_how_to_come_back(door: Door, runs: list[int]) -> None:
    watching = door.start("watch")
    assert watching.stderr is not None
    assert f"run {runs[3]} queued" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    said = ended(watching)
    assert said.code == 130
    assert f"Run {runs[3]} continues. Follow it again: `cohort-sync watch {runs[3]}`." in said.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("6h", NOW - timedelta(hours=6)),
        ("90 m", NOW - timedelta(minutes=90)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T06:00", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("2026-11-20T06:00+02:00", datetime(2026, 11, 20, 4, tzinfo=UTC)),
        (None, None),
    ],
)
def test_moments(given: str | None, meant: datetime | None) -> None:
    assert moment(given, NOW, "--since") == meant


@pytest.mark.parametrize("given", ["", "soon", "0001-01-01T00:00+14:00", "2026-13-01", "7", "-6h"])
def test_what_is_no_moment_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="SETTING_INVALID"):
        moment(given, NOW, "--since")
