"""Secrets as they are given: by an environment variable, a file, a hidden prompt, or as they are.

A secret is never printed, and no error names more than where it was to be found.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from pydantic import SecretStr

from cli import output
from cli.config_file import given_file
from models.contact_keys.compatibility import invisible_at
from models.errors import ConfigurationError

ENV, FILE, PROMPT = "env:", "file:", "-"
FILE_MAX = 65_536
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
HELP = "Also env:NAME or file:PATH; - asks without showing what is typed."


def read_secret(label: str, given: str | None, *, plain: bool = False) -> SecretStr:
    """The secret behind what was given on the command line; asked for if nothing was. `plain`: it is none really."""
    if given is None or given == PROMPT:
        return SecretStr(_filled(_prompt(label), label))
    if not plain and not given.startswith((ENV, FILE)):
        output.note(
            f"warning: the {label} was typed in clear: the shell's history keeps it, and other processes could see it. "
            f"Next time give {ENV}NAME, {FILE}PATH, or - to be asked."
        )
    return SecretStr(resolved(label, given))


def read_optional(label: str, given: str | None, *, plain: bool = False) -> SecretStr | None:
    """The same where nothing given means: leave it as it is."""
    return None if given is None else read_secret(label, given, plain=plain)


def resolved(label: str, given: str) -> str:
    """What a variable or a file holds, or what was given itself."""
    if given.startswith(ENV):
        return _filled(os.environ.get(given.removeprefix(ENV), ""), given)
    if given.startswith(FILE):
        return _filled(_read(given), given)
    return _filled(given, label)


def read_reference(field: str, given: str) -> SecretStr:
    """The secret behind a reference; the secret itself is refused, and so is what may be one in part."""
    if not _REFERENCE.fullmatch(given):
        raise ConfigurationError("SECRET_IN_FILE", field=field)
    return SecretStr(resolved(field, given))


def _prompt(label: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "SECRET_UNREADABLE",
            f"Nobody can be asked for the {label}: this is no terminal.",
            reference="a prompt",
        )
    import typer

    return str(typer.prompt(label, hide_input=True, err=True))


def _read(reference: str) -> str:
    try:
        path = Path(reference.removeprefix(FILE)).expanduser()
        return given_file.read(path, FILE_MAX).decode("utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:  # the last: nobody knows whose home ~ is
        raise ConfigurationError(
            "SECRET_UNREADABLE", f"({type(error).__name__})", reference=reference
        ) from None


def _filled(secret: str, reference: str) -> str:
    """The secret without what surrounds it; one with a character that nobody sees would be blamed on the vendor."""
    text = secret.strip()
    if not text:
        raise ConfigurationError("SECRET_UNREADABLE", "It is empty.", reference=reference)
    position = invisible_at(text)
    if position is not None:
        position += len(secret) - len(secret.lstrip())
        raise ConfigurationError("SECRET_INVISIBLE", reference=reference, position=position)
    return text
