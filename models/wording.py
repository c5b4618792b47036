"""Counts as a sentence has them: one run, two runs."""

from __future__ import annotations


def plural(count: object, one: str, many: str = "") -> str:
    """`1 run`, `1,200 runs`. `many` where an s is not enough: `("member is", "members are")`."""
    shown = f"{count:,}" if isinstance(count, int) else str(count)
    return f"{shown} {one if shown == '1' else many or one + 's'}"
