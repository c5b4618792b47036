"""What destroys asks: refused without a terminal unless `--yes`, and after a no the database is as it was."""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from cli import main
from models.contact_keys.codec import encode_keys
from models.database import Database
from models.membership import webhooks
from models.membership.webhooks import Column, MessageHead
from models.tables import Base
from models.types import Feed
from tests.factories import CREATED, make_binding, make_destination, make_source
from tests.forked import Forked
from tests.integration.door import Door, Said

# Each command that destroys, with arguments for the setup below. What is new and destroys belongs here.
DESTROYING = {
    "source remove": ["spare"],
    "source update": ["spare", "--api-key", "another", "--no-check"],
    "destination update": ["spare", "--client-secret", "another", "--no-check"],
    "binding update": ["told", "--feed", "download"],
    "source webhook": ["amplitude", "--rotate"],
    "destination remove": ["spare"],
    "binding remove": ["vips"],
    "apply": ["empty.yaml", "--prune"],
    "verify": ["vips", "--repair"],
    "reconcile": ["vips", "--new-sync"],
    "run": ["vips", "--clear"],
    "forget": ["somebody"],
    "backup": ["there.db"],
    "restore": ["copy.db"],
}
OPTIONS = {"--prune", "--repair", "--rotate", "--clear", "--clear-flags", "--new-sync"}
WORDS = {"remove", "forget", "restore", "purge", "delete", "reset"}
NEEDS_A_VENDOR = {"verify"}  # it asks when it knows how many rows it would change


def leaves() -> Iterator[tuple[str, Any]]:
    """Every command of the table, with those of the groups."""
    for name in main.COMMANDS:
        command = main.load(name)
        commands = getattr(command, "commands", {})
        if not commands:
            yield name, command
        yield from ((f"{name} {one}", leaf) for one, leaf in commands.items() if not leaf.hidden)


def test_exactly_the_commands_that_destroy_have_a_yes() -> None:
    for path, command in leaves():
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--yes" in options) == (path in DESTROYING), path  # of `run` it also goes past the guards
        if WORDS & set(path.split()) or OPTIONS & options:
            assert path in DESTROYING, path


@pytest.fixture
def door(sqlite_db: Database, tmp_path: Path) -> Door:
    for name in ("amplitude", "spare"):
        make_source(sqlite_db, name)
    make_destination(sqlite_db)
    make_destination(sqlite_db, "spare", subdomain="spare")
    make_binding(sqlite_db, "vips", feed=Feed.WEBHOOK)
    (tmp_path / "empty.yaml").write_text("version: 1\nbindings: {}\n")
    door = Door(sqlite_db.settings, tmp_path)
    door.ok("source", "webhook", "amplitude")
    told = make_binding(sqlite_db, "told", feed=Feed.WEBHOOK)
    head = MessageHead(told.cohort_id, "m-1", in_cohort=True, computed_time=1)
    with sqlite_db.write() as session:
        webhooks.accept(
            session, told.project_id, head, {"user_id": Column(0, 0, encode_keys([]))}, now=CREATED
        )
    door.ok("backup", "copy.db")
    (tmp_path / "there.db").write_text("precious")
    return door


@pytest.mark.parametrize("path", DESTROYING)
def test_without_a_terminal_it_is_refused_and_nothing_is_changed(
    door: Door, sqlite_db: Database, path: str
) -> None:
    before = everything(sqlite_db)
    said = door(*path.split(), *DESTROYING[path], "--json")
    assert (said.code, said.error) == (2, "PRUNE_UNCONFIRMED" if path == "apply" else "UNCONFIRMED")
    assert "nothing was changed" in said.json["error"]["message"]
    assert "--yes" in said.json["error"]["remedy"]
    assert door(*path.split(), *DESTROYING[path], stdin=b"y\n").code == 2
    assert everything(sqlite_db) == before


@pytest.mark.parametrize("path", sorted(DESTROYING.keys() - NEEDS_A_VENDOR))
def test_a_no_says_that_nothing_was_changed(door: Door, sqlite_db: Database, path: str) -> None:
    before = everything(sqlite_db)
    said = answered(door, b"n\n", *path.split(), *DESTROYING[path])
    assert said.code == 130
    assert "Nothing was changed." in said.out
    assert everything(sqlite_db) == before


@pytest.mark.parametrize("path", sorted(DESTROYING.keys() - NEEDS_A_VENDOR))
@pytest.mark.parametrize("answer", [b"y\n", b""])
def test_a_yes_does_it(door: Door, sqlite_db: Database, path: str, answer: bytes) -> None:
    before = everything(sqlite_db)
    words = [*path.split(), *DESTROYING[path]]
    said = answered(door, answer, *words) if answer else door(*words, "--yes")
    assert said.code == 0, said.out + said.err
    assert everything(sqlite_db) != before


def everything(db: Database) -> dict[str, list[Any]]:
    """All rows of all tables. Nothing stays open: `restore` is refused while somebody has the database."""
    with db.read() as session:
        rows = {
            table.name: [tuple(row) for row in session.execute(sqlalchemy.select(table))]
            for table in Base.metadata.sorted_tables
        }
    db.dispose()
    return rows


def answered(door: Door, answer: bytes, *words: str) -> Said:
    """The command on a terminal whose person types this when asked."""
    ours, theirs = pty.openpty()
    terminal = os.ttyname(theirs)
    process = Forked(
        main.main, words, env=door.environment, cwd=door.cwd, stdin=terminal, stdout=terminal, stderr=terminal
    )
    shown = b""
    try:
        while b"[y/N]" not in shown:
            assert process.poll() is None or select.select([ours], [], [], 0)[0], shown
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 1000)
        os.write(ours, answer)
        os.close(theirs)
        with suppress(OSError):  # the other end is closed
            while more := os.read(ours, 1000):
                shown += more
        code = process.wait(20)
    finally:
        process.kill()  # one that asks more than once must not be waited for
        os.close(ours)
    return Said(code, shown.decode(), "")
