"""A table on a terminal never breaks a word or a line; a pipe loses nothing."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cli.tables import Column, State, fitted, plain

COLUMNS = [Column("run"), Column("binding"), Column("state"), Column("members", 2), Column("error", 1)]
ROWS = [
    ["1", "buyers", State("succeeded"), "1,000", "-"],
    ["12", "a binding with a long name", State("failed"), "20", "DATA_EXTENSION_MISSING"],
]
ANSI = re.compile(r"\x1b\[\d*m")


class Terminal(io.TextIOWrapper):
    """Standard output as a UTF-8 terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8")

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes standard output a terminal of that many columns. Called in the test: pytest sets stdout before it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def of(columns: int) -> None:
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("COLUMNS", str(columns))

    return of


def bare(line: str) -> str:
    return ANSI.sub("", line)


def test_a_wide_terminal_shows_everything_with_signs_and_colours(terminal: Callable[[int], None]) -> None:
    terminal(200)
    lines = list(fitted(COLUMNS, ROWS))
    assert [bare(line).split("  ")[0] for line in lines] == ["run", "1", "12"]
    assert "\x1b[32m✓ succeeded\x1b[0m" in lines[1]
    assert "\x1b[31m✗ failed\x1b[0m" in lines[2]
    assert bare(lines[2]).endswith("DATA_EXTENSION_MISSING")


def test_columns_give_way_by_rank_and_the_last_one_is_cut(terminal: Callable[[int], None]) -> None:
    terminal(72)
    head, _, second = map(bare, fitted(COLUMNS, ROWS))
    assert head.split() == ["run", "binding", "state", "members", "error"]
    assert "a binding with a long name" in second
    assert second.endswith("DATA_EXTENSION_M…")
    terminal(60)
    assert bare(next(iter(fitted(COLUMNS, ROWS)))).split() == ["run", "binding", "state", "error"]
    terminal(45)
    assert bare(next(iter(fitted(COLUMNS, ROWS)))).split() == ["run", "binding", "state"]


def test_a_column_without_a_value_is_left_out(terminal: Callable[[int], None]) -> None:
    terminal(200)
    assert "error" not in bare(next(iter(fitted(COLUMNS, ROWS[:1]))))


def test_colours_are_off_if_asked_for(
    terminal: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(200)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(fitted(COLUMNS, ROWS))


def test_a_pipe_gets_every_column_and_no_sign() -> None:
    assert next(iter(plain(COLUMNS, ROWS))).split() == ["RUN", "BINDING", "STATE", "MEMBERS", "ERROR"]
    assert list(plain(COLUMNS, ROWS))[1].split() == ["1", "buyers", "succeeded", "1,000", "-"]


@given(
    cells=st.lists(st.lists(st.text(max_size=40), min_size=5, max_size=5), min_size=1, max_size=4),
    columns=st.integers(30, 160),
)
def test_no_line_is_wider_than_the_terminal_down_to_what_is_always_shown(
    cells: list[list[str]], columns: int
) -> None:
    shown = [[cell.replace("\n", " ") if cell.isprintable() else "-" for cell in row] for row in cells]
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(sys, "stdout", Terminal())
        patched.setenv("COLUMNS", str(columns))
        lines = list(fitted(COLUMNS, shown))
    # Three columns are always shown, each with at least 12 cells where it has them, and two gaps.
    assert all(cell_len(bare(line)) <= max(columns, 3 * 12 + 2 * 2) for line in lines)
    assert len(lines) == len(cells) + 1
