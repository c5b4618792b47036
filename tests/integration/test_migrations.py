"""The migrations make what the tables say, from wherever they start; on both databases."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, text

from models import schema
from models.database import Database
from models.errors import TransientError
from models.tables import Base, CohortBinding
from tests.factories import CREATED

DAY = timedelta(days=1)


def differences(db: Database) -> list[object]:
    with db.engine.connect() as connection:
        return list(
            compare_metadata(
                MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
            )
        )


def test_the_newest_schema_is_what_the_tables_say(db: Database) -> None:
    assert differences(db) == []


def test_partial_indexes_have_the_rows_that_the_tables_say(sqlite_db: Database) -> None:
    with sqlite_db.read() as session:
        rows = session.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))
        made = {name: sql for name, sql in rows}  # noqa: C416 - a row is no pair for mypy
    said = {
        str(index.name): index.info["where"]["sqlite"] if index.info else None
        for table in Base.metadata.tables.values()
        for index in table.indexes
    }
    assert {name: made[name].partition(" WHERE ")[2] or None for name in said} == said


def test_one_line_of_revisions(sqlite_db: Database) -> None:
    script = ScriptDirectory.from_config(schema.config_for(sqlite_db))
    assert script.get_heads() == [schema.head()]
    assert script.get_bases() == ["0001"]


def test_rows_of_the_first_schema_come_along(db: Database) -> None:
    with db.engine.connect().execution_options(cohort_sync_write=True) as connection:
        old = MetaData()
        _made_anew(db, connection, "0001")
        old.reflect(connection)
        for name in ("amplitude_project", "destination", "cohort_binding"):
            connection.execute(old.tables[name].insert().values(_filled(old.tables[name])))
        audit = old.tables["audit_event"]
        for number, details in enumerate(({"api_key": "changed"}, {"region": "eu"}), start=1):
            keys = {"id": number, "at": CREATED + number * DAY, "kind": "source", "action": "update"}
            connection.execute(audit.insert().values(_filled(audit) | keys | {"details": details}))
        run = old.tables["sync_run"]
        ends = (("succeeded", "schedule"), ("failed", "manual"), ("skipped", "chain"))
        for number, (state, trigger) in enumerate(ends, start=1):
            ended = {"id": number, "state": state, "trigger": trigger, "finished_at": CREATED}
            connection.execute(run.insert().values(_filled(run) | ended))
        connection.commit()
    schema.upgrade(db)
    schema.require_current(db)
    assert differences(db) == []
    with db.read() as session:
        binding = session.get_one(CohortBinding, 1)
    assert (binding.name, binding.feed) == ("x", "download")
    assert binding.project.keys_set_at == CREATED + DAY, "as the audit log tells"
    assert binding.bad_run_id == 2, "a skipped run is no result"


@pytest.mark.parametrize("tries", [1, 4])
def test_an_upgrade_waits_for_what_others_keep(
    postgres_db: Database, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    """A worker of the release before has read the table in a transaction that goes on; then it ends."""
    pauses: list[float] = []
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "50ms")
    with postgres_db.engine.connect() as connection:
        _made_anew(postgres_db, connection, "0001")

    with postgres_db.engine.connect() as other:
        other.execute(text("SELECT count(*) FROM sync_run"))

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == tries:
                other.rollback()

        schema.upgrade(postgres_db, sleep=sleep)
    assert len(pauses) == tries
    assert differences(postgres_db) == []


def test_an_upgrade_that_finds_no_moment_changes_nothing(
    postgres_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "50ms")
    with postgres_db.engine.connect() as connection:
        _made_anew(postgres_db, connection, "0001")
    with postgres_db.engine.connect() as other:
        other.execute(text("SELECT count(*) FROM sync_run"))
        with pytest.raises(TransientError, match="DATABASE_BUSY"):
            schema.upgrade(postgres_db, sleep=lambda _: None)
        assert other.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
    schema.upgrade(postgres_db)
    schema.require_current(postgres_db)


def _made_anew(db: Database, connection: Connection, revision: str) -> None:
    """Everything is dropped, and the database is at `revision`."""
    newest = MetaData()
    newest.reflect(connection)
    newest.drop_all(connection)
    config = schema.config_for(db)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()


def _filled(table: Table) -> dict[str, Any]:
    """A value for every column that must have one; every id is 1."""
    values: dict[type, Any] = {
        int: 1,
        str: "x",
        bool: False,
        bytes: b"x",
        object: {},
        datetime: CREATED.replace(tzinfo=None),
        date: CREATED.date(),
    }
    words = {"region": "default", "tier": "audiences", "stage": "finish"}
    return {
        column.name: words.get(column.name, values[column.type.python_type])
        for column in table.columns
        if not column.nullable
    }
