"""Refusals of rows that pass by themselves: the same row is taken when it is sent again. Pure.

The code is the same as for permanent refusals, SQL Server's words are the only mark.
"""

from __future__ import annotations

import re

# What happened, and the words of it.
_PASSING = (
    ("a deadlock's victim", r"deadlock"),
    ("a request to run it again", r"rerun the (?:transaction|request|query)"),
    ("two upserts inserted one key: the second attempt updates it", r"violation of (?:primary|unique) key"),
    ("the same, by an index", r"cannot insert duplicate key"),
    ("a lock was held for too long", r"lock request time-?\s?out"),
    (
        "the database took too long",
        r"(?:execution|query|operation|connection) time-?\s?out|time-?\s?out expired",
    ),
    ("the same, in other words", r"timed out"),
    (
        "a moment's overload",
        r"snapshot isolation transaction aborted|(?:please )?(?:try|retry) (?:again|later)",
    ),
)
_ANY = re.compile("|".join(words for _, words in _PASSING), re.IGNORECASE)


def passes(text: str) -> bool:
    """Whether a refusal with these words is worth another attempt."""
    return _ANY.search(" ".join(text.split())) is not None
