"""Several at once: what stands in the end is one file's whole doing, never a mixture of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.database import Database
from tests.factories import make_destination, make_source
from tests.integration.door import Door

BINDINGS = 12
CRONS = {"a": "0 1 * * *", "b": "0 2 * * *"}
TURNS = 3


@pytest.fixture
def door(db: Database, tmp_path: Path) -> Door:
    make_source(db, "shop")
    make_destination(db, "mc")
    for letters in ("a", "b", "ab"):
        (tmp_path / letters).write_text(text(letters))
    return Door(db.settings, tmp_path)


def text(letters: str) -> str:
    """The same bindings for everybody, with settings of one's own; with two letters, of one or the other."""
    lines = ["version: 1", "bindings:"]
    for n in range(BINDINGS):
        letter = letters[n % len(letters)]
        lines.append(
            f"  {n} th: {{source: shop, cohort: {letter}{n}, destination: mc, attribute: {letter} {n},"
        )
        lines.append(f"    cron: {CRONS[letter]}, jitter: {ord(letter)}}}")
    return "\n".join(lines)


def owners(door: Door) -> set[str]:
    """Whose settings stand there, over all bindings and all their fields."""
    rows: list[dict[str, Any]] = door.ok("binding", "list", "--json").json
    assert len(rows) == BINDINGS
    letters = {cron: letter for letter, cron in CRONS.items()}
    return {
        letter
        for row in rows
        for plan in (row["schedule"],)
        for letter in (
            row["cohort"][0],
            row["attribute"][0],
            letters[plan["cron"]],
            chr(plan["jitter_seconds"]),
        )
    }


def test_applies_at_once_never_mix(door: Door) -> None:
    """From a mixture that each of them would change in another half."""
    for _ in range(TURNS):
        door.ok("apply", "ab", "--no-check")
        assert owners(door) == {"a", "b"}
        begun = [door.begin("apply", file, "--no-check", "--json") for file in "abab"]
        said = [one.end(seconds=60) for one in begun]
        assert len(owners(door)) == 1
        assert 0 in {one.code for one in said}
        assert {one.error for one in said if one.code} <= {"PLAN_OUTDATED"}
