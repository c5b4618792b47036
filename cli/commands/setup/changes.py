"""An `update` that names nothing to change is a mistake: saying "updated" would hide it."""

from __future__ import annotations

import typer

# What says how, not what.
_HOW = {"no_check", "yes", "as_json", "help"}


def require_some(context: typer.Context) -> None:
    """Refuse the command that is being called if none of its options was given."""
    options = [
        one
        for one in context.command.params
        if one.param_type_name == "option" and one.name not in _HOW and not getattr(one, "hidden", False)
    ]
    given = (context.get_parameter_source(str(one.name)) for one in options)
    if not any(source is not None and source.name == "COMMANDLINE" for source in given):
        names = ", ".join(one.opts[0] for one in options)
        raise typer.BadParameter(f"There is nothing to change: give one of {names}.", ctx=context)
