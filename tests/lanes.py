"""What runs beside what with `pytest -n 4 --dist loadfile`: a file is one piece of work, and so is PostgreSQL's lane.

The lane is the tests of the shared product on PostgreSQL, over all files: they follow one another in one process, so
that this product is started once. The one on SQLite is cheap, and each process has its own. Files of a running product
go first, as they take longest; short files go last, so that no process has to wait for another. A file whose tests take
minutes each is given out test by test.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parents[1]
_LONG = {"tests/contract/test_commit_boundaries.py", "tests/contract/test_run_machine.py"}
_FIRST = ("acceptance", "faults", "integration", "contract", "fuzz", "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first what takes longest, in each test process alike."""
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes | None:
    """The lane, beside the files."""
    return Lanes(config, log) if config.getoption("dist") == "loadfile" else None


class Lanes(LoadFileScheduling):
    """Hands out the lane and the files, each whole."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in _LONG:
            return nodeid
        return "postgresql" if _in_lane(nodeid) else path


def _place(item: pytest.Item) -> tuple[bool, bool, bool, int]:
    path = item.nodeid.partition("::")[0]
    kind = _FIRST.index(item.path.parent.name)
    return not _in_lane(item.nodeid), not shares(path), path not in _LONG, kind


def _in_lane(nodeid: str) -> bool:
    path, _, test = nodeid.partition("::")
    return bool(re.search(r"[\[-]postgresql[\]-]", test)) and shares(path)


@cache
def shares(path: str) -> bool:
    """Whether a file's tests have a product of `tests/products.py`, and not one of their own."""
    text = (ROOT / path).read_text()
    return "from tests.product import" in text and "running_product" not in text
