"""The schema's version: alembic migrations, run from code so that no configuration file is needed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from models.database import Database
from models.errors import ConfigurationError

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x636F686F7274  # "cohort": two processes that start at once upgrade one after the other


def upgrade(db: Database) -> None:
    """Bring the database to this version's schema; a no-op if it is there."""
    with db.engine.connect().execution_options(cohort_sync_write=True) as connection:
        if db.dialect == "postgresql":  # of the transaction: a session's lock would stay in the pool
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = config_for(db)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def require_current(db: Database) -> None:
    """Refuse a database of another version, before anything is read from it."""
    with db.read() as session:
        found = MigrationContext.configure(session.connection()).get_current_revision()
    if found != ScriptDirectory.from_config(config_for(db)).get_current_head():
        raise ConfigurationError("DATABASE_SCHEMA")


def config_for(db: Database) -> Config:  # noqa: ARG001 - one signature for callers
    """Alembic's configuration, in memory."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
