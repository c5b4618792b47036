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
MAIN = "import sys, cli.main; sys.exit(cli.main.main())"


class PreviousRelease:
    """Its tree in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """The test is skipped in a source distribution and in a shallow clone: they don't have the commit."""
        if not shutil.which("git"):
            pytest.skip("there is no git here")
        archive = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True, check=False)
        if archive.returncode:
            pytest.skip(f"git does not have {COMMIT} here")
        folder.mkdir()
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
        self._folder = folder
        self._environment = {**environment, "PYTHONPATH": str(folder)}

    def __call__(self, *words: str) -> str:
        """What a command of its says, which must succeed."""
        log = self._folder / "said"
        process = self.start(*words, log=log)
        assert process.wait(60) == 0, log.read_text()
        return log.read_text()

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """A process of it; what it says is appended to `log`."""
        with log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", MAIN, *words],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
