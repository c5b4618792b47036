"""What runs beside what, with `pytest -n 4 --dist loadfile`: a file is one piece of work, and so is a lane.

A lane is the tests of the product that runs on one database, over many files: they follow one another in one process,
so that the product is started once, and not once for every process that comes by one of its files. Lanes go first, as
they take longest; short files go last, so that no process has to wait for another.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parents[1]
_FIRST = ("acceptance", "faults", "integration", "contract", "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first what takes longest, in each test process alike."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not _lane(item.nodeid), _FIRST.index(item.path.parent.name)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes | None:
    """Lanes, beside the files."""
    return Lanes(config, log) if config.getoption("dist") == "loadfile" else None


class Lanes(LoadFileScheduling):
    """Hands out lanes and files, each whole."""

    def _split_scope(self, nodeid: str) -> str:
        return _lane(nodeid) or nodeid.partition("::")[0]


def _lane(nodeid: str) -> str:
    """Where it belongs, if the test is one of a product that many share: most of them are on SQLite."""
    path, _, test = nodeid.partition("::")
    database = re.search(r"[\[-](sqlite|postgresql)[\]-]", test)
    if not database or not _shares(path):
        return ""
    return "postgresql" if database[1] == "postgresql" else f"{Path(path).parent.name} on sqlite"


@cache
def _shares(path: str) -> bool:
    """Whether a file's tests have a product of `tests/products.py`, and not one of their own."""
    text = (ROOT / path).read_text()
    return "from tests.product import" in text and "running_product" not in text
