"""A few examples at every door, the same each time; `make fuzz` tries as long as wanted, and others for each seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.doors import DOORS, tried

EXAMPLES = {"arguments": 60, "config files": 40, "cohort files": 60, "receiver": 25, "queue": 5}
OTHERS = 25


@pytest.mark.parametrize("name", DOORS)
def test_what_nobody_expects(name: str, tmp_path: Path) -> None:
    with DOORS[name](tmp_path) as door:
        assert tried(*door, examples=EXAMPLES.get(name, OTHERS), seed=1)
