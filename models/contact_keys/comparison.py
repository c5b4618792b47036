"""When two contact keys are one contact: the only place that decides it.

Marketing Cloud keeps a data extension in SQL Server, whose usual collation compares a primary key without case
and without trailing spaces: `ABC` and `abc ` are one row. Everything that looks for a member, counts a duplicate
or sorts the stored state goes through `comparison_key`.

It must never be done by a database (`lower()` is not case folding: `ß` differs), and its result
is never sent to anybody: what is pushed is the text as it came.
"""

from __future__ import annotations


def comparison_key(key: str) -> str:
    """The text that stands for every spelling Marketing Cloud takes for the same key."""
    return key.casefold().rstrip(" ")


def is_blank(key: str) -> bool:
    """Whether a key is nothing but white space: such a row names nobody."""
    return not key or key.isspace()


def has_line_break(text: str) -> bool:
    """Whether CR or LF is in it. A contact key never holds one: in a file it is the trace of a stray quote."""
    return "\n" in text or "\r" in text
