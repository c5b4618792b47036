"""`cohort-sync secrets …`: the key that the stored secrets are encrypted with."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from cli import context, output
from models import key_check
from models.errors import ConfigurationError
from models.secrets import add_key, drop_old_keys, key_count

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def group() -> None:
    """The key that the stored secrets are encrypted with."""


@app.command()
def rotate(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Encrypt every stored secret under a new key; killed half-way, run it again.

    The data directory's own key is replaced while no stack runs on it. With COHORT_SYNC_SECRET_KEY: put the new
    key before the old one, restart every process, run this, then take the old key away.

    Example: cohort-sync secrets rotate
    """
    settings = context.settings()
    own = not settings.secret_key
    if not own and len(settings.secret_key) == 1:
        raise ConfigurationError("SECRET_KEY_ALONE")
    from cli.stack.lock import DirectoryLock

    with DirectoryLock(settings.data_dir) if own else nullcontext():
        with context.database(proven=True):
            pass  # before a new key is made
        if own and key_count(settings.data_dir) == 1:  # else a rotation was cut off: on with its key
            add_key(settings.data_dir)
        with context.database() as db:
            changed = key_check.rotate(db, now=context.now(), actor=context.actor())
        if own:
            drop_old_keys(settings.data_dir)
    text = f"Secrets encrypted anew: {changed:,}."
    after = "The old key is gone." if own else "Now take the old keys away from COHORT_SYNC_SECRET_KEY."
    output.done(f"{text} {after}", {"reencrypted": changed}, as_json=as_json)
