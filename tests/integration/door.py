"""The command as a person runs it: a process, its exit code, stdout and stderr.

`start` runs the installed command. Calling a `Door` forks this process instead and goes in at the same entry
point: a process all the same, without the half second that importing the libraries anew would take each time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from cli import context
from cli.main import main
from config.settings import Settings, get_settings
from tests.support import environment

COMMAND = str(Path(sys.executable).with_name("cohort-sync"))


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The code of the error on stdout, of a command with --json."""
        code: str = self.json["error"]["code"]
        return code


class Door:
    """`cohort-sync` with these settings, in a directory without an .env file."""

    def __init__(self, settings: Settings, cwd: Path) -> None:
        self.cwd = cwd
        self.environment = environment(settings)

    def start(self, *arguments: str, **given: Any) -> subprocess.Popen[str]:
        """Start the command and don't wait."""
        return subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.cwd,
            env=self.environment | given.pop("env", {}),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **given,
        )

    def __call__(self, *arguments: str, **env: str) -> Said:
        """The command to its end; never a traceback."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, since 3.12
                child = os.fork()
            if child == 0:
                self._be(arguments, env, out, err)
            _, status = os.waitpid(child, 0)
            said = Said(os.waitstatus_to_exitcode(status), _whole(out), _whole(err))
        assert "Traceback" not in said.err, said.err
        return said

    def ok(self, *arguments: str, **env: str) -> Said:
        """The same, and it has to succeed."""
        said = self(*arguments, **env)
        assert said.code == 0, said.out + said.err
        return said

    def _be(self, arguments: tuple[str, ...], env: dict[str, str], out: IO[str], err: IO[str]) -> NoReturn:
        code = 99
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            os.chdir(self.cwd)
            os.environ.clear()
            os.environ.update(self.environment | env)
            get_settings.cache_clear()
            context.actor.cache_clear()
            code = main(list(arguments))
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001 - nothing may come back to the test's own code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def ended(process: subprocess.Popen[str], seconds: float = 30) -> Said:
    """A started process to its end."""
    out, err = process.communicate(timeout=seconds)
    return Said(process.returncode, out or "", err or "")


def _whole(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
