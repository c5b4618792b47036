"""What a file says against itself holds a run; a few odd rows do not."""

from __future__ import annotations

from typing import Any

import pytest

from models.tables import CohortBinding
from worker.inspection.check_extension import is_flagged
from worker.membership.diff import DiffCounts
from worker.stages.guards import file_guard

ODD_PERCENT = 5


def code_of(**counts: Any) -> str | None:
    """The code of the objection to a run of these counts."""
    whole = {"snapshot_rows": 1_000, "members": 1_000, "exited": 1, "state_members": 1_000}
    names = DiffCounts.__dataclass_fields__
    found = DiffCounts(**{name: counts.get(name, whole.get(name, 0)) for name in names})
    held = file_guard.objection(
        CohortBinding(name="b"), found, run=1, odd_percent=counts.get("percent", ODD_PERCENT)
    )
    return held.code if held else None


@pytest.mark.parametrize(
    ("counts", "code"),
    [
        ({}, None),
        ({"odd": 49}, None),
        ({"odd": 50}, "ODD_KEYS_GUARD"),
        ({"odd": 50, "percent": 10}, None),
        ({"odd": 1_000, "percent": 100}, None),
        ({"snapshot_rows": 4, "odd": 2}, None),
        ({"snapshot_rows": 6, "odd": 3}, "ODD_KEYS_GUARD"),
        ({"snapshot_rows": 2_000, "blank": 1_000, "odd": 50}, "ODD_KEYS_GUARD"),
        ({"duplicate": 500}, None),
        ({"duplicate": 501}, "DUPLICATE_GUARD"),
        ({"spanned": 1, "spanned_rows": 1}, "QUOTED_LINES_GUARD"),
        ({"spanned": 1}, None),
        ({"spanned": 50}, "QUOTED_LINES_GUARD"),
        ({"spanned": 50, "exited": 0}, "QUOTED_LINES_GUARD"),
    ],
)
def test_what_a_file_says_against_itself(counts: dict[str, Any], code: str | None) -> None:
    assert code_of(**counts) == code


def test_a_flag_that_is_set_in_any_spelling() -> None:
    assert all(is_flagged("Boolean", value) for value in ("True", "true", True, "1", "y", "Yes"))
    assert not any(is_flagged("Boolean", value) for value in ("False", "0", "n", "No", "", None, "2"))
