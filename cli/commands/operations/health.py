"""`health`, for the help and the reference; `cohort_sync.py` answers a probe without loading any of this."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import health as probe
from config.pulse import ROLES

app = typer.Typer(add_completion=False)


@app.command()
def health(
    process: Annotated[
        str | None,
        typer.Argument(help=f"One of {', '.join(ROLES)}; without it every process of this machine."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live/--ready", help="Ask only whether it is alive, or whether it can work as well."),
    ] = False,
    kill: Annotated[
        bool, typer.Option("--kill", help="With --live: end a process that is stuck, by SIGKILL.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Whether a process of this machine is alive, and whether it can work. For whatever supervises it.

    `--live` fails for a process that is stuck or gone: restart it. `--ready`, the default, also fails while the
    database or the queue is away: no restart helps. Exits 0 or 1. `--kill` is for Docker Compose, which starts what has
    ended again but does nothing about a probe that fails.

    Example: cohort-sync health worker --live
    """
    flags = {"--live": live, "--kill": kill, "--json": as_json}
    words = [*([process] if process else []), *(flag for flag, given in flags.items() if given)]
    raise typer.Exit(probe.main(words))
