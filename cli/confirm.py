"""The one question before something is lost: asked of a person, refused where nobody can be asked."""

from __future__ import annotations

from collections.abc import Sequence
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


def require_for_lists(cohorts: Sequence[str], *, yes: bool) -> None:
    """The same before what Amplitude's webhook delivered of these cohorts is forgotten, if there are any."""
    if cohorts:
        names = ", ".join(cohorts)
        require(
            f"Forget what Amplitude's webhook delivered of {names}? Only a new sync in Amplitude sends it again.",
            doing=f"Forgetting what Amplitude's webhook delivered of {names}",
            yes=yes,
        )


def require_for_secrets(kind: str, name: str, secrets: Sequence[str], *, yes: bool) -> None:
    """The same before these stored secrets are replaced by others, if any are."""
    if secrets:
        names = " and the ".join(secrets)
        require(
            f"Replace the {names} of {kind} {name!r}? What is stored can't be had back.",
            doing=f"Replacing the {names} of {kind} {name!r}",
            yes=yes,
        )


def require_answerable(*, doing: str, yes: bool, refusal: ConfigurationError | None = None) -> None:
    """Refuse at once what would have to ask later, where nobody can be asked."""
    if not yes and not context.interactive():
        raise refusal or ConfigurationError("UNCONFIRMED", doing=doing)
