"""docs/vendors.md can't lie: every function and every test that it names exists."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TAGS = {"DOC", "1P", "REC", "OFF", "LIVE", "PEER", "3P", "BLOG", "measured", "INF", "?"}
ROW = re.compile(
    r"^\| (?P<fact>.+?) \| (?P<tags>[^|]+) \| `(?P<where>[\w.]+)` \| `(?P<test>[\w./]+::\w+)` \|$"
)


def lines() -> list[str]:
    """The table's lines without its head and its headings."""
    text = (ROOT / "docs/vendors.md").read_text()
    body = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [line for line in body if not line.startswith("| **")]


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_is_there() -> None:
    assert len(lines()) > 90
    facts = [line.split(" | ")[0] for line in lines()]
    assert len(set(facts)) == len(facts)


@pytest.mark.parametrize("line", lines(), ids=lambda line: line[2:50])
def test_row(line: str) -> None:
    found = ROW.match(line)
    assert found is not None, line
    assert {tag.strip() for tag in found["tags"].split(",")} <= TAGS
    path, _, test = found["test"].partition("::")
    assert test.startswith("test_")
    assert test in functions_of(path)
    parts = found["where"].split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            thing = getattr(thing, name)
        return
    raise AssertionError(found["where"])
