"""The guards, case by case: what they let pass, what they hold, and which one speaks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from models.error_catalogue import CATALOGUE
from models.tables import CohortBinding
from worker.membership.diff import DiffCounts
from worker.stages.guards import change_guard
from worker.stages.guards.change_guard import Past

OF_THE_FILE = {"QUOTED_LINES_GUARD", "ODD_KEYS_GUARD"}  # tests/unit/test_file_guard.py


def counts(members: int, before: int, **given: int) -> DiffCounts:
    """A snapshot of so many members over a state of so many; who left is what is missing unless given."""
    exited = given.get("exited", max(0, before - members))
    entered = given.get("entered", max(0, members - before + exited))
    values = {
        "members": members,
        "snapshot_rows": members + given.get("blank", 0) + given.get("duplicate", 0),
        "blank": 0,
        "duplicate": 0,
        "entered": entered,
        "exited": exited,
        "unchanged": members - entered,
        "state_members": before,
        "state_named": before,
        "removed": exited,
        "spared": 0,
        "odd": 0,
        "spanned": 0,
        "spanned_rows": 0,
    }
    return DiffCounts(**{**values, **given})


def code(found: DiffCounts, *, full: bool = False, past: Past | None = None, **limits: int) -> str | None:
    binding = CohortBinding(name="vips", **limits)
    held = change_guard.objection(binding, found, run=7, full=full, past=past)
    if held is None:
        return None
    assert "<" not in held.message + held.remedy, "every fact that the text names is given"
    return held.code


EARLIER, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
PASSES: list[tuple[str, DiffCounts, dict[str, Any]]] = [
    ("a newer snapshot", counts(6, 5), {"past": Past(state_at=EARLIER, snapshot_at=LATER)}),
    ("the very same snapshot", counts(6, 5), {"past": Past(state_at=LATER, snapshot_at=LATER)}),
    ("a snapshot of what is stored", counts(6, 5), {"past": Past(state_at=LATER)}),
    ("nothing to remove", counts(5_000, 5_000), {}),
    ("half of them", counts(5_000, 10_000), {}),
    ("a small cohort empties", counts(0, 999), {}),
    ("a first sync", counts(5_000_000, 0), {}),
    ("at its own limit", counts(80, 100), {"max_removal_percent": 20}),
    ("all, with a hundred per cent", counts(0, 50_000), {"max_removal_percent": 100}),
    ("ten times as many", counts(20_000, 2_000), {}),
    ("a small cohort grows", counts(1_000, 1), {}),
    ("a first sync that was cut off", counts(100_000, 500), {"past": Past(reached=100_000)}),
    ("a first sync at its limit", counts(100, 0), {"max_first_sync": 100}),
    ("not a first sync", counts(101, 100), {"max_first_sync": 100}),
    ("anonymous users", counts(1_000, 1_000, entered=1, exited=1, blank=8_000), {}),
    ("blank rows at the limit", counts(50, 50, blank=50), {"max_blank_percent": 50}),
    ("duplicates at the limit", counts(50, 50, duplicate=50), {"max_duplicate_percent": 50}),
    ("no deviation by default", counts(30_000, 25_000), {"past": Past(sizes=(100,) * 10)}),
    (
        "too few runs for a median",
        counts(200, 150),
        {"max_deviation_percent": 10, "past": Past(sizes=(100, 100))},
    ),
    (
        "one outlier among ten",
        counts(105, 100),
        {"max_deviation_percent": 10, "past": Past(sizes=(9_000, 100, 101, 99))},
    ),
    ("the same data extension", counts(6, 5), {"past": Past(acknowledged_by="a", there_now="a")}),
    ("nothing acknowledged yet", counts(6, 0), {"past": Past(there_now="a")}),
    ("lost keys leave too", counts(50, 100, exited=150, removed=50), {"max_removal_percent": 100}),
    ("full: only lost keys leave", counts(5_000, 5_000, exited=4_000, removed=0), {"full": True}),
]
HOLDS: list[tuple[str, DiffCounts, dict[str, Any]]] = [
    ("REMOVAL_GUARD", counts(4_999, 10_000), {}),
    ("REMOVAL_GUARD", counts(79, 100), {"max_removal_percent": 20}),
    ("REMOVAL_GUARD", counts(99, 100), {"max_removal_percent": 0}),
    ("REMOVAL_GUARD", counts(5_000, 5_000, removed=4_000, exited=0), {"full": True}),
    ("EMPTY_GUARD", counts(0, 19_997), {}),
    ("EMPTY_GUARD", counts(0, 10), {"max_removal_percent": 99}),
    ("GROWTH_GUARD", counts(20_001, 2_000), {}),
    ("GROWTH_GUARD", counts(16, 10), {"max_growth_percent": 50}),
    ("GROWTH_GUARD", counts(11, 10), {"max_growth_percent": 0}),
    ("GROWTH_GUARD", counts(100_000, 500), {"past": Past(reached=600)}),
    ("FIRST_SYNC_GUARD", counts(101, 0), {"max_first_sync": 100}),
    ("FIRST_SYNC_GUARD", counts(1, 0), {"max_first_sync": 0}),
    ("BLANK_GUARD", counts(1_000, 1_000, entered=1, exited=1, blank=9_001), {}),
    ("BLANK_GUARD", counts(50, 50, blank=51), {"max_blank_percent": 50}),
    ("DUPLICATE_GUARD", counts(1_000, 1_000, entered=1, exited=1, duplicate=9_001), {}),
    ("DUPLICATE_GUARD", counts(99, 99, duplicate=1), {"max_duplicate_percent": 0}),
    ("DEVIATION_GUARD", counts(111, 110), {"max_deviation_percent": 10, "past": Past(sizes=(100,) * 3)}),
    ("DEVIATION_GUARD", counts(89, 90), {"max_deviation_percent": 10, "past": Past(sizes=(100,) * 10)}),
    ("SNAPSHOT_AGE_GUARD", counts(6, 5), {"past": Past(state_at=LATER, snapshot_at=EARLIER)}),
    ("EXTENSION_GUARD", counts(6, 5), {"past": Past(acknowledged_by="a", there_now="b")}),
]


@pytest.mark.parametrize(("name", "found", "given"), PASSES, ids=[one[0] for one in PASSES])
def test_passes(name: str, found: DiffCounts, given: dict[str, Any]) -> None:  # noqa: ARG001 - the id
    assert code(found, **given) is None


@pytest.mark.parametrize(("expected", "found", "given"), HOLDS)
def test_holds(expected: str, found: DiffCounts, given: dict[str, Any]) -> None:
    assert code(found, **given) == expected


def test_every_guard_is_tried() -> None:
    assert {one[0] for one in HOLDS} == {name for name in CATALOGUE if name.endswith("_GUARD")} - OF_THE_FILE
