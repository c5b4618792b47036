"""Who was erased, as keyed hashes: enough to keep a contact from being stored again, and too little to name one.

The key of the hashes is a secret of its own, so that a new secret key changes no hash. Compared is what Marketing Cloud
compares: a contact in any spelling.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.contact_keys.comparison import comparison_key
from models.database import lock
from models.errors import ConfigurationError
from models.secrets import Keyring
from models.tables import ErasureKey, ForgottenContact

_ONE = 1  # the key's row


@dataclass(frozen=True)
class Forgotten:
    """Contacts that must not be stored; `since` is when the newest of them was forgotten, none if there is none."""

    hashes: frozenset[str] = frozenset()
    key: bytes = field(default=b"", repr=False)
    since: datetime | None = None

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def __contains__(self, contact_key: str) -> bool:
        """Whether the contact with this key, in any spelling, is one of them."""
        return digest(self.key, contact_key) in self.hashes


@dataclass(frozen=True)
class Kept:
    """What has to survive a restore: the key of the hashes, and each hash with when and by whom it was made."""

    key: bytes = field(default=b"", repr=False)
    rows: tuple[tuple[str, datetime, str], ...] = ()


def digest(key: bytes, contact_key: str) -> str:
    """The keyed hash of a contact: BLAKE2b of its comparison key (RFC 7693, section 2.9)."""
    return blake2b(comparison_key(contact_key).encode(), key=key, digest_size=32).hexdigest()


def load(session: Session, keyring: Keyring) -> Forgotten:
    """Everybody who was forgotten."""
    rows = session.execute(select(ForgottenContact.digest, ForgottenContact.created_at)).all()
    if not rows:
        return Forgotten()
    return Forgotten(
        frozenset(row.digest for row in rows), _key(session, keyring), max(r.created_at for r in rows)
    )


def add(
    session: Session, keyring: Keyring, contact_key: str, *, now: datetime, actor: str
) -> ForgottenContact:
    """The contact's row: a new one, or the one that it has, as not removed yet."""
    row = find(session, keyring, contact_key)
    if row is None:
        row = ForgottenContact(
            digest=digest(_key(session, keyring), contact_key), created_at=now, actor=actor
        )
        session.add(row)
    row.removed_at = None
    session.flush()
    return row


def find(session: Session, keyring: Keyring, contact_key: str) -> ForgottenContact | None:
    """The contact's row, if it is forgotten."""
    mine = digest(_key(session, keyring), contact_key)
    return session.scalar(select(ForgottenContact).where(ForgottenContact.digest == mine))


def every(session: Session) -> list[ForgottenContact]:
    """All of them, the oldest first."""
    return list(session.scalars(select(ForgottenContact).order_by(ForgottenContact.id)))


def kept(session: Session, keyring: Keyring) -> Kept:
    """What a restore has to carry over."""
    rows = every(session)
    key = _key(session, keyring) if rows else b""
    return Kept(key, tuple((row.digest, row.created_at, row.actor) for row in rows))


def carry_over(session: Session, keyring: Keyring, theirs: Kept) -> int:
    """Add to a restored database who was forgotten since; how many. Something of them is stored there."""
    if not theirs.rows or _key(session, keyring, first=theirs.key) != theirs.key:
        return 0
    known = {row.digest for row in every(session)}
    new = [row for row in theirs.rows if row[0] not in known]
    for hashed, created_at, actor in new:
        session.add(ForgottenContact(digest=hashed, created_at=created_at, actor=actor))
    session.flush()
    return len(new)


def _key(session: Session, keyring: Keyring, *, first: bytes = b"") -> bytes:
    """The key of the hashes, made when it is first needed; `first`: to be taken if there is none."""
    stored = session.get(ErasureKey, _ONE)
    if stored is None:
        lock(session, "erasure key")
        stored = session.get(ErasureKey, _ONE)
    if stored is None:
        made = first or secrets.token_bytes(32)
        stored = ErasureKey(id=_ONE, token=keyring.encrypt(SecretStr(made.hex())))
        session.add(stored)
        session.flush()
    return bytes.fromhex(keyring.decrypt(stored.token).get_secret_value())


def undo(session: Session, keyring: Keyring, contact_key: str) -> None:
    """Let the contact be stored again."""
    row = find(session, keyring, contact_key)
    if row is None:
        raise ConfigurationError("NOT_FORGOTTEN")
    session.delete(row)
