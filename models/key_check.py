"""Whether the configured keys read what is stored, and the way from one key to the next.

A process that can't read a secret would fail every run it touches, so each proves its keys before it begins.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from models import audit
from models.database import Database
from models.errors import WrongSecretKeyError
from models.secrets import Keyring
from models.tables import AmplitudeProject, Destination, ErasureKey

# Every column that holds a secret.
_TOKENS: dict[type[AmplitudeProject | Destination | ErasureKey], tuple[InstrumentedAttribute[Any], ...]] = {
    AmplitudeProject: (
        AmplitudeProject.api_key_token,
        AmplitudeProject.secret_key_token,
        AmplitudeProject.webhook_secret_token,
        AmplitudeProject.webhook_old_secret_token,
    ),
    Destination: (Destination.client_secret_token,),
    ErasureKey: (ErasureKey.token,),
}
ROWS_AT_ONCE = 100  # of a transaction: 20 ms, in which SQLite's other writers wait


def prove(db: Database) -> None:
    """SECRET_KEY_WRONG unless every stored secret can be decrypted."""
    with db.read() as session:
        tokens = [
            token
            for columns in _TOKENS.values()
            for column in columns
            for token in session.scalars(select(column).where(column.is_not(None)))
        ]
    unread = sum(not db.keyring.reads(token) for token in tokens)
    if unread:
        raise WrongSecretKeyError("SECRET_KEY_WRONG", f"({unread:,} of {len(tokens):,} stored ones.)")


def rotate(db: Database, *, now: datetime, actor: str) -> int:
    """Encrypt every secret under the first key, a few rows a transaction; how many were not yet.

    Killed anywhere it leaves tokens of both keys, and goes on where it was when it is called again.
    """
    prove(db)
    changed = 0
    for table, columns in _TOKENS.items():
        after = 0
        while True:
            with db.write() as session:
                last, n = _rotate_some(session, db.keyring, table, columns, after)
            if last is None:
                break
            after, changed = last, changed + n
    with db.write() as session:
        audit.record(
            session, now=now, actor=actor, action="rotate", kind="secrets", name="all", reencrypted=changed
        )
    return changed


def _rotate_some(
    session: Session,
    keyring: Keyring,
    table: Any,
    columns: tuple[InstrumentedAttribute[Any], ...],
    after: int,
) -> tuple[int | None, int]:
    """The last id that was looked at, none at the end, and how many secrets were changed."""
    page = select(table).where(table.id > after).order_by(table.id).limit(ROWS_AT_ONCE).with_for_update()
    last, changed = None, 0
    for row in session.scalars(page):
        last = row.id
        for column in columns:
            token = getattr(row, column.key)
            if token is not None and not keyring.is_newest(token):
                setattr(row, column.key, keyring.rotate(token))
                changed += 1
    return last, changed
