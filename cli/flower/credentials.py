"""Who may open Flower: the settings say it, or a password is made on the first start."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from config.settings import Settings
from models.errors import ConfigurationError
from models.private_files import private_file

PASSWORD_FILE = "flower.password"  # noqa: S105 - a file's name


@dataclass(frozen=True)
class Credentials:
    """Who may open Flower; `made` if the password was made just now and nobody has seen it yet."""

    user: str
    password: str
    made: bool = False


def credentials(settings: Settings) -> Credentials:
    """The configured password, or the data directory's own, made on first use."""
    configured = settings.flower_password.get_secret_value() if settings.flower_password else ""
    fresh = secrets.token_urlsafe(18)
    password = configured or private_file(settings.data_dir / PASSWORD_FILE, fresh)
    found = Credentials(settings.flower_user, password, made=password == fresh)
    if not (found.user + found.password).isascii():  # Flower compares bytes it can't make of other letters
        raise ConfigurationError(
            "SETTING_INVALID",
            field="COHORT_SYNC_FLOWER_USER or COHORT_SYNC_FLOWER_PASSWORD",
            value="…",
            hint="Use ASCII letters, digits and signs only.",
        )
    return found
