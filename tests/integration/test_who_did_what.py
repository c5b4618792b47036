"""Every change leaves an event: who, by which door, old and new values, the last content of what is gone; no secret."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select, update

from cli.flower import actions
from config.queue import make_app
from models import schema
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.membership import webhooks
from models.membership.webhooks import Column, MessageHead
from models.runs import lifecycle
from models.tables import AuditEvent, Base, CohortBinding, SyncRun
from models.types import Feed, RunState, Trigger
from tests.factories import make_binding, make_destination, make_source
from tests.integration.door import Door
from tests.integration.test_destroying import leaves

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ME = pwd.getpwuid(os.getuid()).pw_name
ADD = [
    "--source",
    "amplitude",
    "--cohort",
    "c1",
    "--destination",
    "marketing",
    "--attribute",
    "New",
    "--no-check",
]
CREDENTIALS = ["--client-id", "env:SECRET", "--client-secret", "env:SECRET"]
KEYS = ["--api-key", "env:SECRET", "--secret-key", "env:SECRET"]
SECRET = "hunter2hunter2hunter2"

# Each command that changes something: its arguments for the setup below, and what the log says of it.
CHANGING: dict[str, tuple[list[str], str, str, str]] = {
    "source add": (["new", *KEYS, "--no-check"], "add", "source", "new"),
    "source update": (
        ["amplitude", "--api-key", "env:SECRET", "--no-check", "--yes"],
        "update",
        "source",
        "amplitude",
    ),
    "source webhook": (["amplitude"], "update", "source", "amplitude"),
    "source remove": (["spare", "--yes"], "remove", "source", "spare"),
    "destination add": (
        ["new", "--subdomain", "sub2", *CREDENTIALS, "--contact-key-property", "user_id", "--no-check"],
        "add",
        "destination",
        "new",
    ),
    "destination update": (
        ["spare", "--client-id", "env:SECRET", "--no-check"],
        "update",
        "destination",
        "spare",
    ),
    "destination remove": (["spare", "--yes"], "remove", "destination", "spare"),
    "binding add": (["new", *ADD], "add", "binding", "new"),
    "binding update": (["vips", "--max-removal-percent", "10"], "update", "binding", "vips"),
    "binding pause": (["vips", "--reason", "a campaign"], "pause", "binding", "vips"),
    "binding resume": (["vips"], "resume", "binding", "vips"),
    "binding remove": (["vips", "--yes"], "remove", "binding", "vips"),
    "apply": (["more.yaml", "--no-check", "--prune", "--yes"], "update", "binding", "vips"),
    "run": (["vips"], "run", "binding", "vips"),
    "reconcile": (["vips"], "run", "binding", "vips"),
    "cancel": (["1"], "cancel", "run", "1"),
    "approve": (["1", "--reason", "asked"], "approve", "run", "1"),
    "reject": (["1", "--reason", "asked"], "reject", "run", "1"),
    "forget": (["somebody", "--yes"], "erase", "contact", "#1"),
    "secrets rotate": ([], "rotate", "secrets", "all"),
    "backup": (["copy.db"], "backup", "database", "copy.db"),
    "restore": (["copy.db", "--yes"], "restore", "database", "copy.db"),
    "db upgrade": ([], "upgrade", "database", "sqlite"),
}
# `verify --repair` makes a run, and needs a vendor for it: tests/acceptance/test_repair.py finds its event.
ELSEWHERE = {"verify"}
READING = {
    *(
        "status",
        "notices",
        "export",
        "check",
        "plan",
        "runs",
        "watch",
        "show",
        "rejections",
        "why",
        "schedule",
        "audit",
    ),
    *("source list", "source show", "source cohorts", "source usage"),
    *("destination list", "destination show", "binding list", "binding show"),
    *("health", "db compact"),  # what is stored stays as it is
}
PROCESSES = {"up", "down", "logs", "demo", "worker", "scheduler", "receiver", "flower", "monitor", "sandbox"}


def test_every_command_is_one_that_changes_reads_or_serves() -> None:
    """A new command belongs into one of them; one that changes has to leave an event, as the next test sees."""
    known = [*CHANGING, *ELSEWHERE, *READING, *PROCESSES]
    assert sorted(known) == sorted(path for path, _ in leaves())


@pytest.fixture
def filled(sqlite_db: Database, tmp_path: Path) -> Database:
    for name in ("amplitude", "spare"):
        make_source(sqlite_db, name)
    make_destination(sqlite_db)
    make_destination(sqlite_db, "spare", subdomain="spare")
    make_binding(sqlite_db, "vips", cohort_id="c7", attribute="VIP")
    (tmp_path / "more.yaml").write_text(
        "version: 1\nbindings:\n  vips:\n    source: amplitude\n    cohort: c7\n    destination: marketing\n"
        "    attribute: VIP\n    max-removal-percent: 20\n"
    )
    return sqlite_db


def a_run(db: Database, state: RunState) -> int:
    with db.write() as session:
        binding = session.scalars(select(CohortBinding)).one()
        given: dict[str, Any] = {"trigger": Trigger.MANUAL, "scheduled_for": NOW, "now": NOW, "actor": "test"}
        run = lifecycle.dispatch(session, binding, **given)
        run.state = state
        return run.id


def arranged(path: str, db: Database, door: Door) -> None:
    """What the command needs."""
    if path == "cancel":
        a_run(db, RunState.QUEUED)
    elif path in {"approve", "reject"}:
        a_run(db, RunState.HELD)
    elif path == "binding resume":
        with db.write() as session:
            session.execute(update(CohortBinding).values(paused=True, pause_reason="a campaign"))
    elif path == "reconcile":
        with db.write() as session:
            session.execute(update(CohortBinding).values(feed=Feed.WEBHOOK))
            [row] = session.scalars(select(CohortBinding))
            head = MessageHead(row.cohort_id, "m-1", in_cohort=True, computed_time=1)
            webhooks.accept(
                session, row.project_id, head, {"user_id": Column(0, 0, encode_keys([]))}, now=NOW
            )
    elif path == "restore":
        door.ok("backup", "copy.db")
    elif path == "db upgrade":
        with db.engine.connect().execution_options(cohort_sync_write=True) as connection:
            Base.metadata.drop_all(connection)
            connection.exec_driver_sql("DELETE FROM alembic_version")
            connection.commit()
            config = schema.config_for(db)
            config.attributes["connection"] = connection
            command.upgrade(config, "0009")
            connection.commit()
    db.dispose()


@pytest.mark.parametrize("path", CHANGING)
def test_each_leaves_an_event(path: str, filled: Database, tmp_path: Path) -> None:
    arguments, action, kind, name = CHANGING[path]
    door = Door(filled.settings, tmp_path)
    arranged(path, filled, door)
    said = door.ok(*path.split(), *arguments, SECRET=SECRET)
    event = door.ok("audit", "--limit", "1", "--json").json[0]
    assert (event["action"], event["kind"], event["name"]) == (action, kind, name)
    assert (event["actor"], event["door"]) == (ME, "file" if path == "apply" else "cli")
    told = door.ok("audit").out
    assert f"{action} {kind} {name}" in told
    for secret in (
        SECRET,
        *(line.split()[-1] for line in said.out.splitlines() if line.startswith("its value")),
    ):
        assert secret not in told + str(door.ok("audit", "--json").json)
    if kind in {"binding", "run"}:
        of_binding = door.ok("audit", "--binding", "VIPs" if name != "new" else name, "--json").json
        assert event["id"] in {one["id"] for one in of_binding}


def test_old_and_new_values_and_the_last_content(filled: Database, tmp_path: Path) -> None:
    door = Door(filled.settings, tmp_path)
    door.ok("binding", "update", "vips", "--max-removal-percent", "10", "--name", "gold")
    door.ok("binding", "update", "gold", "--max-removal-percent", "10")  # as it is: nothing was done
    door.ok(
        "destination",
        "update",
        "spare",
        "--subdomain",
        "other",
        "--client-secret",
        "env:SECRET",
        "--no-check",
        "--yes",
        SECRET=SECRET,
    )
    door.ok("binding", "remove", "gold", "--yes")
    gone, moved, changed = door.ok("audit", "--limit", "3", "--json").json
    assert changed["details"] == {
        "name": {"old": "vips", "new": "gold"},
        "max_removal_percent": {"old": None, "new": 10},
    }
    assert moved["details"]["subdomain"] == {"old": "spare", "new": "other"}
    assert moved["details"]["client_secret"] == "changed"
    last = gone["details"]
    assert (last["source"], last["cohort"], last["attribute"]) == (
        {"old": "amplitude"},
        {"old": "c7"},
        {"old": "VIP"},
    )
    assert "max_removal_percent: none → 10" in door.ok("audit").out
    for name in ("gold", "vips"):  # gone, and what it was called before
        assert [one["action"] for one in door.ok("audit", "--binding", name, "--json").json] == [
            "remove",
            "update",
            "add",
        ]


def test_narrowed_by_actor_and_time(filled: Database, tmp_path: Path) -> None:
    door = Door(filled.settings, tmp_path)
    door.ok("binding", "pause", "vips")
    assert {one["actor"] for one in door.ok("audit", "--json").json} == {"test", ME}
    assert [one["action"] for one in door.ok("audit", "--actor", ME, "--json").json] == ["pause"]
    assert [one["action"] for one in door.ok("audit", "--since", "1h", "--json").json] == ["pause"]
    assert door.ok("audit", "--until", "2020-01-01").out == "Nothing was done that is recorded.\n"
    assert door("audit", "--binding", "nobody", "--json").error == "NOT_FOUND"


@pytest.mark.parametrize("door", ["flower", "api"])
@pytest.mark.parametrize("name", [*actions.OF_BINDING, *actions.OF_RUN])
def test_what_is_done_through_flower(name: str, door: str, filled: Database) -> None:
    asked = actions.Asked(filled, make_app(filled.settings), "ann", door)
    change: Callable[..., Any]
    if name in actions.OF_RUN:
        change = actions.OF_RUN[name]
        target = str(a_run(filled, RunState.QUEUED if name == "cancel" else RunState.HELD))
    else:
        change, target = actions.OF_BINDING[name], "vips"
    change(asked, target, {})
    with filled.read() as session:
        event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc())).first()
        assert event is not None
        binding, run = session.scalars(select(CohortBinding)).one(), session.scalars(select(SyncRun)).first()
    assert (event.action, event.actor, event.door, event.binding_id) == (name, "ann", door, binding.id)
    assert event.name in {"vips", str(run.id) if run else ""}
