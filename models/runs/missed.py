"""How many occurrences were missed, and how that is said. The count has a bound, which only this module knows.

An occurrence that no run was made for is counted in exactly one row of `sync_run`: the run after it, or a skipped row
where the downtime got no run. Whoever counts (`scheduler/policy.py`) or shows must not know another bound.
"""

from __future__ import annotations

COUNTED = 1_000  # a count for a person to read; a stored COUNTED + 1 says "more"


def counted(missed: int) -> str:
    """A stored count for a person."""
    return f"{missed:,}" if missed <= COUNTED else f"more than {COUNTED:,}"
