"""What a command stands on: the settings, the database at this version's schema, the queue, who and when.

What knows the database and the queue is imported by the functions that need it: a stack lives for months and doesn't.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cli import output
from config.settings import PREFIX, Settings, dotenv, get_settings, unknown
from models.errors import ConfigurationError, OldSchemaError

if TYPE_CHECKING:
    from models.database import Database

ACTOR_MAX = 100
name_unknown = True  # whether variables that look like settings and are none are named
# Their values, or parts of them, are secrets.
UNSHOWN = ("secret_key", "flower_password", "redis_url", "database_url", "notify_urls")


def settings() -> Settings:
    """The process's settings; SETTINGS_INVALID names every mistake at once. What is none is named, once."""
    if name_unknown:
        _name_the_unknown()
    try:
        return get_settings()
    except ValidationError as error:
        mistakes = "; ".join(_mistake(one["loc"], one["msg"], one["input"]) for one in error.errors())
        raise ConfigurationError("SETTINGS_INVALID", mistakes=mistakes) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "SETTINGS_INVALID", mistakes=f"the .env file can't be read ({type(error).__name__})"
        ) from None


@lru_cache(maxsize=1)
def _name_the_unknown() -> None:
    with suppress(OSError, UnicodeDecodeError):
        for name, meant in unknown([*os.environ, *dotenv()]).items():
            question = f" Did you mean {meant}?" if meant else ""
            output.note(f"warning: {name} is not a setting, so it changes nothing.{question}")


@contextmanager
def database(*, upgrade: bool = False, proven: bool = False) -> Iterator[Database]:
    """The database, at this version's schema.

    The embedded SQLite is upgraded without being asked: nobody but this command may have made it. PostgreSQL
    may serve other hosts, so there a person says when (`db upgrade`). `proven`: SECRET_KEY_WRONG unless the keys
    read every stored secret.
    """
    from models import audit, key_check, schema

    db = _connect(settings())
    audit.enter(audit.CLI)
    try:
        if upgrade:
            schema.upgrade(db, now=now(), actor=actor())
        else:
            try:
                schema.require_current(db)
            except OldSchemaError:
                if db.dialect != "sqlite":
                    raise
                schema.upgrade(db, now=now(), actor=actor())
        if proven:
            key_check.prove(db)
        yield db
    finally:
        db.dispose()


def queue_answers() -> bool:
    """Whether the queue's server can be reached and takes messages."""
    from models import broker

    return broker.tells(settings(), seconds=2.0) is not None


def require_queue() -> None:
    """BROKER_CLUSTER if the queue's server can be none. One that is away is waited for."""
    if settings().embedded_broker:
        return
    from models import broker

    with broker.redis_client(settings().redis, seconds=2.0) as client:
        broker.refuse_cluster(client)


def schedulers() -> dict[str, str] | None:
    """The schedulers that tick, each with the instant of its last sign of life; none if the queue is away."""
    from models import broker

    told = broker.tells(settings(), seconds=2.0)
    return None if told is None else told.schedulers


def now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


@lru_cache(maxsize=1)
def actor() -> str:
    """Who is changing something, for the audit log: the account of the operating system, and whom sudo let in.

    The account that the process has, not the one that a variable names: USER may say anything.
    """
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # a container's user id without an entry
        name = f"uid {number}"
    person = os.environ.get("SUDO_USER", name)
    return (name if person == name else f"{person} as {name}")[:ACTOR_MAX]


def interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _connect(found: Settings) -> Database:
    from models.database import Database

    try:
        return Database(found)
    except OSError as error:
        raise ConfigurationError(
            "SETTINGS_INVALID",
            mistakes=f"{PREFIX}DATA_DIR: {str(found.data_dir)!r} can't be used ({error.strerror})",
        ) from None


def _mistake(place: tuple[int | str, ...], problem: str, given: object) -> str:
    field = str(place[0]) if place else ""
    shown = "" if field in UNSHOWN else f" {given!r}:"
    problem = problem.removeprefix("Value error, ")
    return f"{PREFIX}{field.upper()}:{shown} {problem[:1].lower()}{problem[1:]}"
