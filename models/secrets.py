"""Secrets at rest: Fernet tokens under a ring of keys, the first encrypts and all decrypt.

The keys come from `COHORT_SYNC_SECRET_KEY`, or else from a file of mode 0600 in the data directory that is
made on first use. A plain secret exists only inside a `SecretStr`, whose `repr` is masked.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from config.settings import Settings
from models.errors import ConfigurationError, WrongSecretKeyError
from models.private_files import private_file, replacing

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_FILE = "secret.key"
KEY_BYTES = 32  # of a Fernet key, in url-safe base64


class Keyring:
    """Encrypts under the newest key, decrypts under any.

    cryptography is imported for the first secret: most commands read none, and would wait 7 ms for it.
    """

    def __init__(self, keys: list[SecretStr]) -> None:
        self._keys = [key.get_secret_value() for key in keys]
        self._newest = self._keys[0].encode() if keys else b""
        if not keys or not all(map(_is_key, self._keys)):
            raise ConfigurationError(
                "SETTING_INVALID",
                field="COHORT_SYNC_SECRET_KEY",
                value="…",
                hint="A key is 32 url-safe base64-encoded bytes; make one with "
                "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`.",
            )

    @cached_property
    def _fernet(self) -> MultiFernet:
        from cryptography.fernet import Fernet, MultiFernet

        return MultiFernet([Fernet(key) for key in self._keys])

    @classmethod
    def load(cls, settings: Settings) -> Keyring:
        """The configured ring, or the data directory's own key."""
        return cls(settings.secret_key or _keys_of(settings.data_dir))

    def encrypt(self, secret: SecretStr) -> bytes:
        """A token under the newest key."""
        return self._fernet.encrypt(secret.get_secret_value().encode())

    def decrypt(self, token: bytes) -> SecretStr:
        """The secret of a token made under any key of the ring."""
        return SecretStr(self._read(self._fernet.decrypt, token).decode())

    def reads(self, token: bytes) -> bool:
        """Whether the token was made under a key of the ring."""
        try:
            self._read(self._fernet.decrypt, token)
        except WrongSecretKeyError:
            return False
        return True

    def differs(self, token: bytes, secret: SecretStr | None) -> bool:
        """Whether another secret is given than the stored one; one that can't be read is nobody's loss."""
        if secret is None or not self.reads(token):
            return False
        return self.decrypt(token).get_secret_value() != secret.get_secret_value().strip()

    def is_newest(self, token: bytes) -> bool:
        """Whether the token was made under the newest key."""
        return Keyring([SecretStr(self._newest.decode())]).reads(token)

    def rotate(self, token: bytes) -> bytes:
        """The same secret under the newest key."""
        return self._read(self._fernet.rotate, token)

    @staticmethod
    def _read(by: Callable[[bytes], bytes], token: bytes) -> bytes:
        from cryptography.fernet import InvalidToken

        try:
            return by(token)
        except InvalidToken:
            raise WrongSecretKeyError("SECRET_KEY_WRONG") from None

    def fingerprint(self, secret: SecretStr) -> str:
        """What tells secrets apart and says nothing of them: keyed, so that nobody can try out guesses at it."""
        return hmac.digest(self._newest, secret.get_secret_value().encode(), "sha256").hex()


def key_count(data_dir: Path) -> int:
    """How many keys the data directory has: two while a rotation is under way."""
    return len(_keys_of(data_dir))


def add_key(data_dir: Path) -> None:
    """A new first key beside the old ones."""
    new = SecretStr(_new_key())
    _keep_keys(data_dir, [new, *_keys_of(data_dir)])


def drop_old_keys(data_dir: Path) -> None:
    """The first key alone."""
    _keep_keys(data_dir, _keys_of(data_dir)[:1])


def _keep_keys(data_dir: Path, keys: list[SecretStr]) -> None:
    """Replace the key file at once: whoever reads it has the old keys or the new ones."""
    with replacing(data_dir / KEY_FILE) as draft, draft.open("wb") as file:
        file.write(",".join(key.get_secret_value() for key in keys).encode())
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(folder)  # or the replacement is lost with the power, after tokens were made under its key
    finally:
        os.close(folder)


def _keys_of(data_dir: Path) -> list[SecretStr]:
    text = private_file(data_dir / KEY_FILE, _new_key())
    return [SecretStr(key.strip()) for key in text.split(",")]


def _new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def _is_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text)) == KEY_BYTES
    except ValueError:
        return False
