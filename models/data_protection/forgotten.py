"""Who was erased, as keyed hashes: enough to keep a contact from being stored again, and too little to name one.

The key of the hashes is a secret of its own, so that a new secret key changes no hash. Compared is what Marketing Cloud
compares: a contact in any spelling. What is stored of a contact is removed by `models/data_protection/erasure.py`.
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
from models.direction import Direction
from models.errors import ConfigurationError
from models.secrets import Keyring
from models.tables import ErasureKey, ForgottenContact

_ONE = 1  # the key's row
LOCK = "forgotten contacts"
"""Held by whoever stores contact keys (shared), and by whoever forgets one."""

_EVERY = select(ForgottenContact.id, ForgottenContact.digest, ForgottenContact.leaving)


@dataclass(frozen=True)
class Forgotten:
    """Contacts that must not be stored. `leaving` are those of them whose flags runs still set to false; `newest` is
    the number of the one that was forgotten last, 0 if nobody was.
    """

    hashes: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    key: bytes = field(default=b"", repr=False)
    newest: int = 0

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def __contains__(self, contact_key: object) -> bool:
        """Whether the contact with this key, in any spelling, is one of them."""
        if not self.hashes:  # as in most installations: a hash of each of a million rows takes two seconds
            return False
        return isinstance(contact_key, str) and digest(self.key, contact_key) in self.hashes

    def besides(self, known: Forgotten) -> Forgotten:
        """These, for blobs that are without those already `known`: nobody, unless the list has changed since."""
        return Forgotten() if self == known else self

    def without(self, direction: Direction, n: int, keys: bytes) -> tuple[int, bytes]:
        """(rows, keys) of a batch without them; who leaves may still be pushed out."""
        gone = self.hashes - self.leaving if direction == Direction.EXIT else self.hashes
        if not gone:
            return n, keys
        from models.contact_keys import codec  # with numpy: an eighth of a `status`, which needs none of it

        return codec.without(keys, lambda key: digest(self.key, key) in gone)


@dataclass(frozen=True)
class Kept:
    """What has to survive a restore: the key of the hashes, and each hash with when and by whom it was made."""

    key: bytes = field(default=b"", repr=False)
    rows: tuple[tuple[str, datetime, str], ...] = ()


def digest(key: bytes, contact_key: str) -> str:
    """The keyed hash of a contact: BLAKE2b of its comparison key (RFC 7693, section 2.9)."""
    return blake2b(comparison_key(contact_key).encode(), key=key, digest_size=32).hexdigest()


# --- keeping them out -----------------------------------------------------------------------------------


def load(session: Session, keyring: Keyring) -> Forgotten:
    """Everybody who was forgotten."""
    rows = session.execute(_EVERY).all()
    if not rows:
        return Forgotten()
    return Forgotten(
        frozenset(row.digest for row in rows),
        frozenset(row.digest for row in rows if row.leaving),
        _key(session, keyring),
        max(row.id for row in rows),
    )


def enforced(session: Session, keyring: Keyring) -> Forgotten:
    """The same, for a transaction that stores contact keys: nobody is forgotten or removed until it ends."""
    lock(session, LOCK, shared=True)
    return load(session, keyring)


def hold_stores(session: Session) -> None:
    """Let no transaction that stores contact keys run beside this one."""
    lock(session, LOCK)


# --- the list -------------------------------------------------------------------------------------------


def add(
    session: Session, keyring: Keyring, contact_key: str, *, leaving: bool, now: datetime, actor: str
) -> ForgottenContact:
    """The contact's row, as of one who is not removed yet; from the commit on nothing of them is stored any more."""
    hold_stores(session)
    row = find(session, keyring, contact_key)
    if row is None:
        hashed = digest(_key(session, keyring), contact_key)
        row = ForgottenContact(digest=hashed, created_at=now, actor=actor, leaving=leaving)
        session.add(row)
    row.removed_at, row.leaving = None, leaving
    session.flush()
    return row


def find(session: Session, keyring: Keyring, contact_key: str) -> ForgottenContact | None:
    """The contact's row, if it is forgotten. While nobody is, no key is made to look with."""
    if session.scalar(select(ForgottenContact.id).limit(1)) is None:
        return None
    mine = digest(_key(session, keyring), contact_key)
    return session.scalar(select(ForgottenContact).where(ForgottenContact.digest == mine))


def every(session: Session) -> list[ForgottenContact]:
    """All of them, the oldest first."""
    return list(session.scalars(select(ForgottenContact).order_by(ForgottenContact.id)))


def undo(session: Session, keyring: Keyring, contact_key: str) -> ForgottenContact:
    """Let the contact be stored again: NOT_FORGOTTEN if it may be anyway."""
    row = find(session, keyring, contact_key)
    if row is None:
        raise ConfigurationError("NOT_FORGOTTEN")
    session.delete(row)
    return row


# --- through a restore ----------------------------------------------------------------------------------


def kept(session: Session, keyring: Keyring) -> Kept:
    """What a restore has to carry over."""
    rows = every(session)
    key = _key(session, keyring) if rows else b""
    return Kept(key, tuple((row.digest, row.created_at, row.actor) for row in rows))


def carry_over(session: Session, keyring: Keyring, theirs: Kept) -> int:
    """Add to a restored database who was forgotten since; how many. Something of them may be stored there."""
    if not theirs.rows or _key(session, keyring, first=theirs.key) != theirs.key:
        return 0
    known = {row.digest for row in every(session)}
    new = [row for row in theirs.rows if row[0] not in known]
    for hashed, created_at, actor in new:
        session.add(ForgottenContact(digest=hashed, created_at=created_at, actor=actor, leaving=False))
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
