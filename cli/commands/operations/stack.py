"""`up`, `down`, `logs`: the whole product on this machine, on a terminal or in the background."""

from __future__ import annotations

import sys
from collections import deque
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from cli import context, output
from cli.commands.operations import port_options
from cli.exit_codes import Code
from models.errors import ConfigurationError

app = typer.Typer(add_completion=False)

STOP_SECONDS = 60.0  # workers have 25 s for what they are at


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    flower_port: port_options.Flower = None,
    monitor_port: port_options.Monitor = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Start it in the background; `down` ends it.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say warnings and errors alone.")] = False,
    log: Annotated[Path | None, typer.Option(hidden=True, help="Where its processes write.")] = None,
) -> None:
    """The whole stack on this machine: queue, scheduler, workers, Flower and the monitor.

    Prints where to look; Ctrl-C or `cohort-sync down` stops it cleanly and leaves nothing behind.

    Example: cohort-sync up --detach
    """
    from cli.stack import up as stack

    settings = port_options.applied(context.settings(), flower_port, monitor_port)
    context.require_queue()
    if settings.notify_urls:  # one that can't be used is said here, before anything is started
        from models.secrets import Keyring
        from monitor.channels import channels

        channels(settings, Keyring.load(settings))
    if not detach:
        raise typer.Exit(stack.up(settings, workers=workers, quiet=quiet, log=log))
    given = {"--workers": workers, "--flower-port": flower_port, "--monitor-port": monitor_port}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    raise typer.Exit(stack.detach(settings, options, quiet=quiet))


@app.command()
def down() -> None:
    """Stop the stack of this machine, wherever it was started, and wait until it has ended.

    Nothing is lost: what a worker can't finish in 25 seconds goes on when a worker starts again.

    Example: cohort-sync down
    """
    from cli.stack import running

    data_dir = context.settings().data_dir
    try:
        ended = running.stop(data_dir, STOP_SECONDS)
    except TimeoutError:
        output.note(f"The stack is still ending after {STOP_SECONDS:.0f} s. Repeat the command to wait on.")
        raise typer.Exit(Code.FAILED) from None
    except PermissionError:
        raise ConfigurationError("NOT_OURS", what=f"The stack on {data_dir}") from None
    output.say("stopped" if ended else f"No stack runs on {data_dir}.")


@app.command()
def logs(
    process: Annotated[
        str | None,
        typer.Argument(help="Only the lines of stack, scheduler, worker, flower or monitor (default: all)."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written next.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only lines from then on: 90m, 6h or 7d ago, or a date or time."),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
) -> None:
    """The log of a stack that was started with `up --detach`: as it is in a pipe, easier to read on a terminal.

    Example: cohort-sync logs worker --follow
    """
    from cli.config_file.timing import moment
    from cli.stack import logs as kept
    from cli.stack import running

    data_dir, start = context.settings().data_dir, moment(since, context.now(), "--since")
    if process is not None and process not in kept.PROCESSES:
        raise typer.BadParameter(f"{process!r} is none of {', '.join(kept.PROCESSES)}", param_hint="PROCESS")
    log = kept.path(data_dir)
    if not log.exists():
        raise ConfigurationError("LOG_MISSING", path=log)
    end = log.stat().st_size
    older = kept.since(kept.before(log), 0) if kept.before(log).exists() else []
    whole = chain(older, kept.since(log, 0, end))
    for line in deque((one for one in whole if kept.wanted(one, process, start)), lines):
        _show(line)
    if not follow:
        return
    for line in kept.follow(log, end, lambda: running.find(data_dir) is not None):
        if kept.wanted(line, process, None):
            _show(line)
    output.note("The stack has ended.")


def _show(line: str) -> None:
    from cli.stack.logs import readable

    output.say(readable(line) if sys.stdout.isatty() else line)
    sys.stdout.flush()
