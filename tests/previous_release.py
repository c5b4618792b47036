"""The release before this one, as it runs on hosts that were not upgraded yet: its own code, our libraries."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import ROOT

# 0.1.0: the last commit before CHANGELOG.md had an Unreleased section.
COMMIT = "860d561c3794a32269a47e1ddae786529192688b"
SCHEMA = "0006"
# Each argument is a command line; the next one begins when the one before it has succeeded.
MAIN = """
import shlex, sys, cli.main
for line in sys.argv[1:]:
    if code := cli.main.main(shlex.split(line)):
        sys.exit(code)
"""


def unpack(folder: Path) -> None:
    """Its tree into a folder. The test is skipped where that commit is not: source distributions, shallow clones."""
    if not shutil.which("git"):
        pytest.skip("there is no git here")
    archive = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"git does not have {COMMIT} here")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


class PreviousRelease:
    """Its processes, of the tree in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, "PYTHONPATH": str(folder)}

    def __call__(self, *lines: str, log: Path) -> None:
        """Commands of its, one after the other in a process; all of them must succeed."""
        assert self.start(*lines, log=log).wait(60) == 0, log.read_text()

    def start(self, *lines: str, log: Path) -> subprocess.Popen[bytes]:
        """A process of it for these command lines; what it says is appended to `log`."""
        with log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", MAIN, *lines],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
