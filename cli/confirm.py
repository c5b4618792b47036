"""The one question before something is lost: asked of a person, refused where nobody can be asked."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import context, output
from models.errors import ConfigurationError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NOTHING_CHANGED = "Nothing was changed."


def require(question: str, *, doing: str, yes: bool, refusal: ConfigurationError | None = None) -> None:
    """Return if it may be done: `--yes`, or a person says yes. UNCONFIRMED without a terminal, Abort after a no.

    `doing` names the loss for whoever can't be asked: "removing binding 'vips'". `refusal` stands for UNCONFIRMED.
    """
    if yes:
        return
    require_answerable(doing=doing, yes=yes, refusal=refusal)
    try:
        typer.confirm(question, abort=True, err=True)
    except typer.Abort:
        output.note(NOTHING_CHANGED)
        raise


def require_answerable(*, doing: str, yes: bool, refusal: ConfigurationError | None = None) -> None:
    """Refuse at once what would have to ask later, where nobody can be asked."""
    if not yes and not context.interactive():
        raise refusal or ConfigurationError("UNCONFIRMED", doing=doing)
