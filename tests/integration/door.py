"""The command as a person runs it: a process, its exit code, stdout and stderr.

`start` runs the installed command. Calling a `Door`, or `begin`, goes in at the same entry point from a process that
has imported the libraries (`tests/forked.py`): a process all the same, without the second that this takes each time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.main import main
from config.settings import Settings
from tests.forked import Forked
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

    def begin(self, *arguments: str, stdin: bytes = b"", **env: str) -> Begun:
        """The command, under way."""
        return Begun(self, arguments, stdin, env)

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> Said:
        """The command to its end; never a traceback."""
        return self.begin(*arguments, stdin=stdin, **env).end()

    def ok(self, *arguments: str, **env: str) -> Said:
        """The same, and it has to succeed."""
        said = self(*arguments, **env)
        assert said.code == 0, said.out + said.err
        return said


class Begun:
    """A command under way."""

    def __init__(self, door: Door, arguments: tuple[str, ...], stdin: bytes, env: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cs-said-"))
        if stdin:
            (self._folder / "in").write_bytes(stdin)
        self.process = Forked(
            main,
            arguments,
            env=door.environment | env,
            cwd=door.cwd,
            stdin=self._folder / "in" if stdin else os.devnull,
            stdout=self._folder / "out",
            stderr=self._folder / "err",
        )

    def end(self, seconds: float | None = None) -> Said:
        """What it left behind; never a traceback."""
        code = self.process.wait(seconds)
        said = Said(code, *((self._folder / name).read_text() for name in ("out", "err")))
        shutil.rmtree(self._folder)
        assert "Traceback" not in said.err, said.err
        return said


def ended(process: subprocess.Popen[str], seconds: float = 30) -> Said:
    """A started process to its end."""
    out, err = process.communicate(timeout=seconds)
    return Said(process.returncode, out or "", err or "")
