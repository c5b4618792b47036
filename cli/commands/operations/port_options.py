"""The ports of the processes that serve pages, as options; without one the setting decides."""

from __future__ import annotations

from typing import Annotated

import typer

from config.settings import Settings

Flower = Annotated[
    int | None,
    typer.Option(
        min=0, max=65_535, metavar="PORT", help="Flower's port; 0 takes a free one.", show_default=False
    ),
]
Monitor = Annotated[
    int | None,
    typer.Option(
        min=0, max=65_535, metavar="PORT", help="The monitor's port; 0 takes a free one.", show_default=False
    ),
]


def applied(settings: Settings, flower: int | None = None, monitor: int | None = None) -> Settings:
    """The settings with what was given instead."""
    given = {"flower_port": flower, "monitor_port": monitor}
    return settings.model_copy(update={name: port for name, port in given.items() if port is not None})
