"""Secrets at rest: Fernet tokens under a ring of keys, the first encrypts and all decrypt.

The keys come from `COHORT_SYNC_SECRET_KEY`, or else from a file of mode 0600 in the data directory that is
made on first use. A plain secret exists only inside a `SecretStr`, whose `repr` is masked.
"""

from __future__ import annotations

import hmac
import os
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from config.settings import Settings
from models.errors import ConfigurationError

KEY_FILE = "secret.key"


class Keyring:
    """Encrypts under the newest key, decrypts under any."""

    def __init__(self, keys: list[SecretStr]) -> None:
        self._newest = keys[0].get_secret_value().encode() if keys else b""
        try:
            self._fernet = MultiFernet([Fernet(key.get_secret_value()) for key in keys])
        except ValueError:
            raise ConfigurationError(
                "SETTING_INVALID",
                field="COHORT_SYNC_SECRET_KEY",
                value="…",
                hint="A key is 32 url-safe base64-encoded bytes; make one with "
                "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`.",
            ) from None

    @classmethod
    def load(cls, settings: Settings) -> Keyring:
        """The configured ring, or the data directory's own key."""
        return cls(settings.secret_key or [_key_of(settings.data_dir)])

    def encrypt(self, secret: SecretStr) -> bytes:
        """A token under the newest key."""
        return self._fernet.encrypt(secret.get_secret_value().encode())

    def decrypt(self, token: bytes) -> SecretStr:
        """The secret of a token made under any key of the ring."""
        try:
            return SecretStr(self._fernet.decrypt(token).decode())
        except InvalidToken:
            raise ConfigurationError("SECRET_KEY_WRONG") from None

    def rotate(self, token: bytes) -> bytes:
        """The same secret under the newest key."""
        try:
            return self._fernet.rotate(token)
        except InvalidToken:
            raise ConfigurationError("SECRET_KEY_WRONG") from None

    def fingerprint(self, secret: SecretStr) -> str:
        """What tells secrets apart and says nothing of them: keyed, so that nobody can try out guesses at it."""
        return hmac.digest(self._newest, secret.get_secret_value().encode(), "sha256").hex()


def make_private_dir(path: Path) -> None:
    """The data directory, for its owner alone."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


def private_file(path: Path, content: str) -> str:
    """What stands in the file; `content` if it had to be made. Two processes may race: one content wins."""
    make_private_dir(path.parent)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(FileExistsError):
        if not path.exists():
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(handle, content.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            try:
                os.link(draft, path)  # atomic, and fails if another process was first
            finally:
                draft.unlink()
    return path.read_text().strip()


def _key_of(data_dir: Path) -> SecretStr:
    return SecretStr(private_file(data_dir / KEY_FILE, Fernet.generate_key().decode()))
