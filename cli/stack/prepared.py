"""The database of a stack, made ready by a process of its own that ends before anything else is started.

So what that takes (SQLAlchemy, Alembic, cryptography) is not in the stack's memory as long as it lives.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cli.stack import parent_death
from models.errors import OldSchemaError, SyncError


def database(environment: Mapping[str, str]) -> str:
    """Bring the database of these settings to this version's schema and prove the keys; its URL without the password.

    Raises what went wrong there. A Ctrl-C in the terminal is the stack's alone.
    """
    done = subprocess.run(
        parent_death.command("exec", sys.executable, "-P", "-m", __name__),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise SyncError("INTERNAL", kind=f"preparing the database: exit code {done.returncode}")
    told = pickle.loads(done.stdout)  # noqa: S301 - our own child's
    if isinstance(told, BaseException):
        raise told
    return str(told)


def _make_ready() -> str:
    from sqlalchemy.engine import make_url

    from cli import context
    from config.logging import configure
    from models import key_check, schema
    from models.database import Database

    context.name_unknown = False  # the stack has done that
    settings = context.settings()
    configure(settings, "stack")
    db = Database(settings)
    try:
        try:
            schema.require_current(db)
        except OldSchemaError:  # Alembic is loaded for that alone
            schema.upgrade(db, now=context.now(), actor=context.actor())
        key_check.prove(db)
    finally:
        db.dispose()
    return make_url(settings.database).render_as_string(hide_password=True)


def _told(error: Exception) -> bytes:
    """The error for the stack; one that can't be passed on by its kind."""
    if not isinstance(error, SyncError):
        error.add_note(traceback.format_exc())  # shown with COHORT_SYNC_LOG_LEVEL=DEBUG alone
    with suppress(Exception):
        passed: Any = pickle.dumps(error)
        pickle.loads(passed)  # noqa: S301 - just made
        return bytes(passed)
    return pickle.dumps(SyncError("INTERNAL", kind=type(error).__name__))


def main() -> None:
    """Tell on stdout what came of it, for `database`."""
    try:
        told = pickle.dumps(_make_ready())
    except Exception as error:  # noqa: BLE001 - the stack says it
        told = _told(error)
    sys.stdout.buffer.write(told)


if __name__ == "__main__":
    main()
