"""Who may deliver: every source's secret in memory, so that a stranger's request never reaches the database.

What is kept is renewed every second: a new source or a rotated secret is known that soon, also where several
receivers run. A database that is away leaves the secrets as they were.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.database import Database
from models.errors import SyncError
from models.membership import webhooks
from models.naming import name_key

log = structlog.get_logger()

RENEW_SECONDS = 1.0
# So long without an answer of the database, and the receiver calls itself ill.
STALE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class SourceSecret:
    """A source; without a secret nobody may pass. The one before a rotation is right until `old_until`."""

    project_id: int
    secret: bytes | None = field(repr=False)
    old: bytes | None = field(default=None, repr=False)
    old_until: datetime | None = None

    def opens(self, given: bytes, now: datetime) -> bool:
        """Whether the secret is right, in a time that tells neither how nearly nor whether there is one."""
        valid = self.old is not None and self.old_until is not None and now < self.old_until
        right = hmac.compare_digest(given, self.secret or _NO_SECRET)
        old = hmac.compare_digest(given, self.old or _NO_SECRET)
        return (right and self.secret is not None) | (old and valid)


_NO_SECRET = secrets.token_urlsafe(32).encode()
_NOBODY = SourceSecret(0, None)


class SourceSecrets:
    """All sources, by id and by name."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._sources: dict[str, SourceSecret] = {}
        self._known: dict[bytes, bytes] = {}
        self._renewed = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="secrets", daemon=True)

    def start(self) -> None:
        """Read them, and go on reading them."""
        self.renew()
        self._thread.start()

    def close(self) -> None:
        """No more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def fresh(self) -> bool:
        """Whether the database answered lately."""
        return time.monotonic() - self._renewed < STALE_SECONDS

    def admits(self, name: str, given: str | None, now: datetime) -> int | None:
        """The id of the source with that name or id, if the secret is its; else none, and no sign which was wrong."""
        source = self._sources.get(name_key(name), _NOBODY)
        right = source.opens((given or "").encode("latin-1"), now)
        return source.project_id if right else None

    def renew(self) -> None:
        """Read the secrets; those that did not change are not decrypted again."""
        with self._db.read() as session:
            rows = webhooks.source_credentials(session)
        tokens = {token for row in rows for token in (row.token, row.old_token) if token}
        known = {token: self._known.get(token) or self._decrypt(token) for token in tokens}
        found: dict[str, SourceSecret] = {}
        for row in rows:
            found[str(row.id)] = found[row.name_key] = SourceSecret(
                row.id,
                known[row.token] if row.token else None,
                known[row.old_token] if row.old_token else None,
                row.old_until,
            )
        self._known, self._sources, self._renewed = known, found, time.monotonic()

    def _decrypt(self, token: bytes) -> bytes:
        return self._db.keyring.decrypt(token).get_secret_value().encode()

    def _keep(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                self.renew()
            except (SyncError, SQLAlchemyError) as error:
                log.warning("secrets_not_renewed", kind=type(error).__name__)
