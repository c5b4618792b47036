"""The schema's version: alembic migrations, run from code so that no configuration file is needed.

Alembic is imported only to migrate: every command asks for the version first, and most need no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from models import audit
from models.database import Database
from models.database.errors import named_errors
from models.errors import ConfigurationError, OldSchemaError, TransientError
from models.tables import SchemaFloor

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
# Releases from this schema on work with the newest one. A contracting migration raises it to the first schema whose
# release does not use what it takes away (CONTRIBUTING.md, "A migration").
FLOOR = "0016"
_LOCK = 0x636F686F7274  # "cohort": two processes that start at once upgrade one after the other
_LOCK_TIMEOUT = "3s"
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds


def upgrade(
    db: Database, *, now: datetime | None = None, actor: str = "", sleep: Callable[[float], None] = time.sleep
) -> None:
    """Bring the database to this version's schema; a no-op if it is there, or at a newer one that lets us in.

    The audit log says who did, if `actor` is given; a database that is made is no change of one. Processes may be at
    work meanwhile: whatever they keep is waited for a moment only, as everybody else waits behind a change of a table,
    and then tried again. DATABASE_BUSY, with nothing changed, if that does not help.
    """
    pauses = iter(_PAUSES if db.dialect == "postgresql" else ())  # SQLite's writer has waited for a minute
    while True:
        try:
            with (
                named_errors(db.place),
                db.engine.connect().execution_options(cohort_sync_write=True) as line,
            ):
                return _upgrade(line, db, now, actor)
        except TransientError as error:
            pause = next(pauses, None)
            if error.code != "DATABASE_BUSY" or pause is None:
                raise
            sleep(pause)


def _upgrade(connection: Connection, db: Database, now: datetime | None, actor: str) -> None:
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.util import CommandError

    if db.dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        connection.execute(text("SELECT set_config('lock_timeout', :lock, true)"), {"lock": _LOCK_TIMEOUT})
    config = config_for(db)
    config.attributes["connection"] = connection
    try:
        before = MigrationContext.configure(connection).get_current_revision()
        if before is not None and before > head():
            with Session(connection) as session:
                check(session)
            return
        command.upgrade(config, "head")
        with Session(connection) as session:
            session.merge(SchemaFloor(id=1, oldest=FLOOR))
            session.flush()
        if actor and now is not None and before not in (None, head()):
            with Session(connection) as session:
                audit.record(
                    session,
                    now=now,
                    actor=actor,
                    action="upgrade",
                    kind="database",
                    name=db.dialect,
                    schema={"old": before, "new": head()},
                )
                session.flush()
        connection.commit()
    except CommandError:  # it names a revision that this version does not have
        raise ConfigurationError("DATABASE_NEWER", known=head()) from None
    finally:
        connection.rollback()
        if db.dialect == "postgresql":  # the connection goes back to the pool, and would keep the lock
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()


def require_current(db: Database) -> None:
    """Refuse a database that this version can't work with, before anything is read from it."""
    with db.read() as session:
        check(session)


def check(session: Session) -> None:
    """The same, within a transaction that goes on."""
    found = session.scalar(text("SELECT version_num FROM alembic_version"))
    if found is not None and str(found) > head():  # numbers of four digits, in order
        floor = session.get(SchemaFloor, 1)
        if floor is None or floor.oldest > head():
            raise ConfigurationError("DATABASE_NEWER", known=head())
    elif found != head():
        raise OldSchemaError("DATABASE_SCHEMA")


@lru_cache(maxsize=1)
def head() -> str:
    """The newest revision: the files are numbered in the order they are applied in."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def config_for(db: Database) -> Config:  # noqa: ARG001 - one signature for callers
    """Alembic's configuration, in memory."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
