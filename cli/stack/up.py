"""`cohort-sync up`: the stack of this machine until it is told to leave, here or in the background."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cli import output
from cli.flower.credentials import PASSWORD_FILE
from cli.stack import logs, running
from cli.stack.stack import Stack, StopRequested
from config.logging import configure
from config.settings import Settings
from models.errors import ConfigurationError

ROTATE_SECONDS = 30.0
READY, LATE = "ready", "not everything answers yet"


def up(settings: Settings, *, workers: int = 1, quiet: bool = False, log: Path | None = None) -> int:
    """Run the stack until Ctrl-C, SIGTERM or `down`. With `log` its processes write there."""
    if quiet:
        settings = settings.model_copy(update={"log_level": "WARNING"})
    configure(settings, "stack")
    leave = StopRequested()
    leave.install()
    with (
        suppress(KeyboardInterrupt),
        running.announced(settings.data_dir) as here,
        Stack(settings, workers=workers, log=log) as stack,
    ):
        here.tell(flower=stack.flower_url, metrics=f"{stack.monitor_url}/metrics")
        _say(introduction(stack), quiet=quiet)
        if stack.wait_until_ready(leave=leave):
            how = "Ctrl-C" if log is None else "`cohort-sync down`"
            _say([f"{READY}; {how} stops it"], quiet=quiet and log is None)  # `detach` waits for it
        elif not leave.asked:
            _say([f"{LATE}: the log says why; it goes on trying"], quiet=quiet and log is None)
        while not leave.asked:
            leave.wait(ROTATE_SECONDS if log else None)
            if log:
                logs.rotate(log)
    if not quiet:
        output.note("stopped")
    return 0


def detach(settings: Settings, arguments: Sequence[str], *, quiet: bool) -> int:
    """Start `up` with these arguments so that it outlives this command and its terminal; say what it says till it is
    ready. Its exit code if it ended before.
    """
    if (found := running.find(settings.data_dir)) is not None:
        raise ConfigurationError("ALREADY_RUNNING", pid=found.pid)
    log = logs.path(settings.data_dir)
    with logs.opened(log) as errors:
        begun = errors.tell()
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "cohort_sync",
                "up",
                *arguments,
                *["--quiet"] * quiet,
                "--log",
                str(log),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            text=True,
        )
    for line in process.stdout or ():
        if not quiet:
            output.say(line.rstrip("\n"))
        if line.startswith((READY, LATE)):
            process.returncode = 0  # nobody waits for it any more
            return 0
    for line in logs.since(log, begun):
        output.note(line)
    return process.wait()


def introduction(stack: Stack) -> Iterator[str]:
    """Where to look; a password only if nobody has seen it yet."""
    settings, known = stack.settings, stack.password
    kept = settings.data_dir / PASSWORD_FILE
    yield "cohort-sync is starting"
    yield f"  Flower    {stack.flower_url}"
    if known.made:
        yield f"            user {known.user}, password {known.password}"
        yield f"            shown this once; kept in {kept}"
    elif settings.flower_password:
        yield f"            user {known.user}, password as configured"
    else:
        yield f"            user {known.user}, password in {kept}"
    yield f"  metrics   {stack.monitor_url}/metrics"
    yield f"  database  {stack.database}"
    yield f"  queue     {'embedded Valkey' if stack.valkey else _without_password(settings.redis_url)}"
    yield f"  data      {settings.data_dir}"


def _say(lines: Iterator[str] | Sequence[str], *, quiet: bool) -> None:
    if not quiet:
        for line in lines:
            output.say(line)
        sys.stdout.flush()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
