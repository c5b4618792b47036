"""The demo's comparison must not be easier to please than a person: each way to differ is found."""

from __future__ import annotations

import pytest
from rich.console import Console

from cli.demo import report
from cli.demo.readback import DemoReadback, Verdict, compare, strangers

BEFORE = {"a", "b", "gone"}
NOW = {"a", "b", "new"}
RIGHT = {
    "a": {"flag": "true", "other": "", "note": ""},
    "b": {"flag": "true", "other": "true", "note": ""},
    "new": {"flag": "true", "other": "", "note": ""},
    "gone": {"flag": "false", "other": "", "note": ""},
    "else": {"flag": "", "other": "true", "note": ""},
}
OWNED = {"Flag": BEFORE | NOW, "Other": {"b", "else"}}


def changed(contact: str, **values: str | None) -> DemoReadback:
    rows = {key: dict(row) for key, row in RIGHT.items()}
    for name, value in values.items():
        if value is None:
            rows.pop(contact, None)
        else:
            rows.setdefault(contact, dict.fromkeys(RIGHT["a"], ""))[name] = value
    return DemoReadback(rows=rows, pages=1)


def test_the_right_rows_are_equal() -> None:
    verdict = compare(DemoReadback(rows=RIGHT), "Flag", NOW, BEFORE)
    assert verdict == Verdict("Flag", members=3, left=1, flagged=3, unflagged=1)
    assert verdict.equal
    assert strangers(DemoReadback(rows=RIGHT), OWNED) == []


@pytest.mark.parametrize(
    ("contact", "value", "where"),
    [
        ("a", "false", "missing"),
        ("a", "", "missing"),
        ("a", None, "missing"),
        ("new", "", "missing"),
        ("gone", "true", "extra"),
        ("gone", "", "lost"),
        ("gone", None, "lost"),
        ("else", "true", "extra"),
        ("nobody", "true", "extra"),
    ],
)
def test_one_wrong_row_is_found(contact: str, value: str | None, where: str) -> None:
    verdict = compare(changed(contact, flag=value), "Flag", NOW, BEFORE)
    assert not verdict.equal
    assert contact in getattr(verdict, where)


@pytest.mark.parametrize(
    ("contact", "values"),
    [("a", {"note": "x"}), ("a", {"other": "false"}), ("else", {"flag": "false"}), ("nobody", {"flag": ""})],
)
def test_what_no_binding_wrote_is_found(contact: str, values: dict[str, str]) -> None:
    assert strangers(changed(contact, **values), OWNED) == [contact]


def test_the_account_is_as_strict() -> None:
    console = Console(quiet=True)
    right, wrong = Verdict("Flag", 1, 0, 1), Verdict("Flag", 1, 0, 0, missing=["a"])
    assert report.show_verdict(console, DemoReadback(), [right], [])
    assert not report.show_verdict(console, DemoReadback(), [right, wrong], [])
    assert not report.show_verdict(console, DemoReadback(), [right], ["a"])
    assert not report.show_verdict(console, DemoReadback(repeated=1), [right], [])
