"""The command as a person runs it: a process, its exit code, stdout and stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import Settings
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

    def __init__(self, settings: Settings, cwd: Path, **more: str) -> None:
        self.cwd = cwd
        self.environment = environment(settings) | more

    def start(self, *arguments: str, **given: Any) -> subprocess.Popen[str]:
        """Start it and don't wait."""
        return subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.cwd,
            env=self.environment | given.pop("env", {}),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=given.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            **given,
        )

    def __call__(self, *arguments: str, **env: str) -> Said:
        """Run it to its end; never a traceback."""
        with self.start(*arguments, env=env) as process:
            said = ended(process)
        assert "Traceback" not in said.err
        return said

    def ok(self, *arguments: str, **env: str) -> Said:
        """The same, and it has to succeed."""
        said = self(*arguments, **env)
        assert said.code == 0, said.out + said.err
        return said


def ended(process: subprocess.Popen[str], seconds: float = 30) -> Said:
    """The process to its end."""
    out, err = process.communicate(timeout=seconds)
    return Said(process.returncode, out or "", err or "")
