"""docs/walkthrough.md, pasted: every block of it in one shell, each command doing what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import free_port

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"


@pytest.mark.timeout(240)
def test_the_page_can_be_pasted(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    script = "\n".join(["set -em", *blocks]).replace("8899", str(free_port()))
    (tmp_path / "tmp").mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COHORT_SYNC_")}
    result = subprocess.run(
        ["timeout", "--kill-after=10", "200", "bash", "-c", script],
        cwd=tmp_path,
        # Other stacks may run on this machine; a reader has the ports for himself.
        env=kept
        | {"PATH": path, "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
        | {"COHORT_SYNC_FLOWER_PORT": "0", "COHORT_SYNC_MONITOR_PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert "Traceback" not in said
    assert said.count("No difference") + said.count("equal") >= 2, said
    assert "rejected  3 enter" in said, said
    assert "ROWS_REJECTED" not in said.rpartition("BINDING")[2]  # the last run took them
