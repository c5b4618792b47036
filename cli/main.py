"""`cohort-sync`: the table of commands, and what becomes of a failure.

A command's module is imported when the command is used, so that `--help` costs nothing; what a command does
is said once here in a line, and with an example in its module.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import typer
from typer.core import TyperGroup

from cli import output
from cli.exit_codes import Code
from models.errors import ConfigurationError, SyncError


class Entry(NamedTuple):
    """Where a command stands, and what it does in a line."""

    module: str
    panel: str
    help: str


_BEGIN, _SETUP, _WORK, _SERVE = "Begin here", "Set up", "Run and look", "Processes"

COMMANDS = {
    "up": Entry("cli.commands.operations.stack", _BEGIN, "The whole stack on this machine."),
    "down": Entry("cli.commands.operations.stack", _BEGIN, "Stop the stack of this machine."),
    "logs": Entry("cli.commands.operations.stack", _BEGIN, "The log of a stack in the background."),
    "demo": Entry(
        "cli.commands.operations.processes", _BEGIN, "See it work: the stack against sandbox vendors."
    ),
    "status": Entry(
        "cli.commands.operations.status",
        _BEGIN,
        "Bindings, their last and next runs, and what needs attention.",
    ),
    "notices": Entry(
        "cli.commands.operations.notices", _BEGIN, "What needed attention, and where each notice was sent."
    ),
    "source": Entry("cli.commands.setup.sources", _SETUP, "Amplitude projects: where cohorts come from."),
    "destination": Entry(
        "cli.commands.setup.destinations", _SETUP, "Marketing Cloud business units: where flags go."
    ),
    "binding": Entry(
        "cli.commands.setup.bindings", _SETUP, "Cohort bindings: one cohort kept in one attribute."
    ),
    "apply": Entry("cli.commands.setup.apply", _SETUP, "Change the setup to match a file."),
    "export": Entry("cli.commands.setup.export", _SETUP, "Write the setup as a file for `apply`."),
    "check": Entry("cli.commands.setup.checks", _SETUP, "Test every precondition; changes nothing."),
    "plan": Entry("cli.commands.runs.preview", _WORK, "What a run would do now; pushes nothing."),
    "run": Entry("cli.commands.runs.run", _WORK, "Sync a binding now."),
    "runs": Entry("cli.commands.runs.runs", _WORK, "The newest runs."),
    "watch": Entry("cli.commands.runs.runs", _WORK, "Follow a run to its end."),
    "show": Entry("cli.commands.runs.runs", _WORK, "One run: counts, timeline, batches, error, rejections."),
    "rejections": Entry(
        "cli.commands.runs.rejections", _WORK, "The rows that Marketing Cloud refused in a run, by reason."
    ),
    "why": Entry(
        "cli.commands.runs.why", _WORK, "Whether one person is a member, since which run, and why not."
    ),
    "cancel": Entry("cli.commands.runs.runs", _WORK, "Stop a run."),
    "approve": Entry("cli.commands.runs.runs", _WORK, "Let a held run continue."),
    "reject": Entry("cli.commands.runs.runs", _WORK, "End a held run; nothing is pushed."),
    "verify": Entry(
        "cli.commands.runs.verify", _WORK, "Read Marketing Cloud back and compare it with what is stored."
    ),
    "reconcile": Entry(
        "cli.commands.runs.reconcile", _WORK, "Give a webhook's list a new base, by a download or a new sync."
    ),
    "schedule": Entry("cli.commands.runs.schedule", _WORK, "Upcoming runs, and what they use of the quota."),
    "worker": Entry("cli.commands.operations.processes", _SERVE, "A worker: takes runs from the queue."),
    "scheduler": Entry(
        "cli.commands.operations.processes", _SERVE, "A scheduler: makes runs when they are due."
    ),
    "receiver": Entry("cli.commands.setup.webhooks", _SERVE, "A receiver of Amplitude's cohort webhook."),
    "flower": Entry("cli.commands.operations.processes", _SERVE, "Flower: watch the queue in a browser."),
    "monitor": Entry(
        "cli.commands.operations.processes", _SERVE, "The monitor: metrics, and whether the work gets done."
    ),
    "health": Entry(
        "cli.commands.operations.health",
        _SERVE,
        "Whether a process of this machine lives and can work: for probes.",
    ),
    "sandbox": Entry(
        "cli.commands.operations.processes", _SERVE, "Both vendors on localhost, for trying things out."
    ),
    "db": Entry("cli.commands.operations.db", _SERVE, "The database's schema."),
    "audit": Entry("cli.commands.operations.audit", _WORK, "Who changed what, and when."),
    "forget": Entry(
        "cli.commands.operations.forget", _WORK, "Erase one person, and keep them from being stored again."
    ),
    "backup": Entry("cli.commands.operations.backup", _SERVE, "Copy the database while everything runs."),
    "restore": Entry("cli.commands.operations.backup", _SERVE, "Go back to a copy, while nothing runs."),
    "secrets": Entry("cli.commands.operations.secrets", _SERVE, "The key that secrets are encrypted with."),
}


HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
METAVARS = {int: "NUMBER", float: "NUMBER", Path: "FILE"}
ALIASES = {"ls": "list", "rm": "remove"}


class Commands(TyperGroup):
    """The commands by name; the real one is loaded when it is to be called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command named first, and the arguments that are left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


def load(name: str) -> Any:
    """The command of that name: one of its module's, or the module's group."""
    with no_collection():
        found = import_module(COMMANDS[name].module)
    module = typer.main.get_command(found.app)
    commands = module.commands if isinstance(module, TyperGroup) else {}
    command = commands.get(name, module)
    if isinstance(command, TyperGroup):
        for alias, meant in ALIASES.items():
            if meant in command.commands:
                command.commands[alias] = hidden = copy(command.commands[meant])
                hidden.hidden = True
    for one in [command, *getattr(command, "commands", {}).values()]:
        one.help = reflowed(one.help)
        _show_alike(one)
    return command


@contextmanager
def no_collection() -> Iterator[None]:
    """For imports: what they make stays. Looking for garbage in it took a sixth of a start (2026-11)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _show_alike(command: Any) -> None:
    """One style for what a value is called: `NAME`, `NUMBER`, `FILE`; nothing for an option that takes none."""
    wanted = command.get_help_option(typer.Context(command, **HELP))
    for parameter in [*command.params, *([wanted] if wanted is not None else [])]:
        if parameter.param_type_name == "argument":
            parameter.metavar = (parameter.metavar or parameter.name).upper().replace("_", "-")
            # typer would show `{NAME}` in the usage, and `<str>` beside the name.
            shown = parameter.metavar if parameter.required else f"[{parameter.metavar}]"
            parameter._usage_display_name = partial(str, shown)  # noqa: SLF001 - there is no other door
            parameter.display_type_rich = lambda **_: None
        elif parameter.metavar is None:
            _name_the_value(parameter)


def _name_the_value(option: Any) -> None:
    annotation = option.type_descriptor.annotation
    if option.is_flag:
        option.metavar = ""
    elif choices := option.type_descriptor.choices:
        option.metavar = option.name.upper().replace("_", "-")
        option.help = (
            f"{option.help} One of: {', '.join(str(getattr(one, 'value', one)) for one in choices)}."
        )
    else:
        kinds = get_args(annotation) or (annotation,)
        option.metavar = next((METAVARS[kind] for kind in kinds if kind in METAVARS), "TEXT")


def reflowed(text: str | None) -> str:
    """Paragraphs without the line breaks that a source file needs; typer would keep them."""
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.say(f"cohort-sync {version('cohort-sync')}")
        raise typer.Exit


def _placeholder() -> None:
    """Stands in a list for a command that is not loaded yet."""


# What Python makes of bytes that are no UTF-8: neither a database nor a terminal takes it.
_UNDECODED = re.compile("[\ud800-\udfff]")

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings=HELP,
)


_ABOUT = """Keeps Amplitude cohorts flagged in Salesforce Marketing Cloud, exactly, on a schedule.

Names of things are the ones you gave them; ids work too. Settings come from the environment, prefix
COHORT_SYNC_, or an .env file. Begin with `cohort-sync demo`.

Exit codes: 0 done, 1 failed, 2 bad input (nothing changed), 3 finished with rejected rows, 4 held for approval,
5 a check failed.
"""


@app.callback(help=reflowed(_ABOUT))
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What every command has before its name."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.help, rich_help_panel=_entry.panel)(_placeholder)


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit code. Never a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    os.umask(0o077)  # whatever is made may hold personal data
    as_json = output.JSON_FLAG in arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _call(arguments, as_json=as_json)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Code.INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.FAILED
    return code


def _call(arguments: list[str], *, as_json: bool) -> int:
    if any(_UNDECODED.search(argument) for argument in arguments):
        output.error("USAGE", "An argument is not UTF-8 text.", "Type it anew, in UTF-8.", as_json=as_json)
        return Code.USAGE
    try:
        commands = typer.main.get_command(app)
        _show_alike(commands)
        code = commands.main(arguments, prog_name="cohort-sync", standalone_mode=False)
    except typer.Abort:  # a prompt was left
        return Code.INTERRUPTED
    except typer.TyperException as wrong:
        _show_usage(wrong, as_json=as_json)
        return wrong.exit_code
    except SyncError as failed:
        output.error(failed.code, failed.message, failed.remedy, as_json=as_json)
        return Code.USAGE if isinstance(failed, ConfigurationError) else Code.FAILED
    except BrokenPipeError:
        raise
    except Exception as failed:  # noqa: BLE001 - the last door: whatever it is, it has a name and no traceback
        if (full := _disk_full(failed)) is not None:
            output.error(full.code, full.message, full.remedy, as_json=as_json)
        else:
            _show_internal(failed, as_json=as_json)
        return Code.FAILED
    return code if isinstance(code, int) else 0


def _show_usage(wrong: typer.TyperException, *, as_json: bool) -> None:
    context = getattr(wrong, "ctx", None)
    path = context.command_path if context is not None else "cohort-sync"
    message = wrong.format_message().removeprefix("Invalid value: ")
    # A library's words for itself, and what it tried, tell a person nothing.
    message = re.sub(r", unable to parse [a-z ]+$", "", message.replace("Value error, ", ""))
    output.error("USAGE", message, f"Look at `{path} --help`.", as_json=as_json)


def _disk_full(failed: Exception) -> SyncError | None:
    from models.disk_errors import disk_full

    return disk_full(failed, Path.cwd())


def _show_internal(failed: Exception, *, as_json: bool) -> None:
    error = SyncError("INTERNAL", kind=type(failed).__name__)
    remedy = error.remedy
    if os.environ.get("COHORT_SYNC_LOG_LEVEL", "").upper() == "DEBUG":
        import traceback

        traceback.print_exception(failed)
    else:
        remedy += " COHORT_SYNC_LOG_LEVEL=DEBUG shows where it happened."
    output.error(error.code, error.message, remedy, as_json=as_json)
