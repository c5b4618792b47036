"""No catalogue text ever prints a <placeholder>: every place that raises a code gives the facts its text names."""

from __future__ import annotations

import ast
import shlex
import string
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

from models import errors
from models.error_catalogue import CATALOGUE
from models.errors import RateLimited, SyncError

ROOT = Path(__file__).parents[2]
FOLDERS = ("config", "models", "scheduler", "worker", "cli", "receiver")
KINDS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, SyncError) and name != "LeaseLost"
}
# Subclasses that stand elsewhere.
KINDS |= {
    "NotSentError",
    "AnswerLostError",
    "PayloadTooLargeError",
    "RowsRefusedError",
    "BatchRefusedError",
    "RetrieveRefusedError",
}


def named(code: str) -> set[str]:
    """The facts that a code's two texts name."""
    texts = CATALOGUE[code].message, CATALOGUE[code].remedy
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


def raised() -> Iterator[tuple[str, set[str], str]]:
    """(code, keywords, place) of every error made in the code, with its code spelled out there."""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for function in [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))]:
            for call in [n for n in ast.walk(function) if isinstance(n, ast.Call)]:
                name = (
                    call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                )
                if name not in KINDS or not call.args:
                    continue
                if any(keyword.arg is None for keyword in call.keywords):
                    continue  # **facts: those places are tried by the contract tests
                given = {keyword.arg for keyword in call.keywords if keyword.arg}
                for code in codes(call.args[0], function):
                    yield code, given, f"{path.relative_to(ROOT)}:{call.lineno}"


def codes(node: ast.expr, function: ast.AST) -> set[str]:
    """The codes that an expression may stand for: a literal, a choice of literals, or a name given them here."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.IfExp):
        return codes(node.body, function) | codes(node.orelse, function)
    if isinstance(node, ast.Name):
        values = [
            n.value
            for n in ast.walk(function)
            if isinstance(n, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == node.id for t in n.targets)
        ]
        return {code for value in values for code in codes(value, function)}
    return set()


def test_the_scan_sees_most_of_the_catalogue() -> None:
    seen = {code for code, _, _ in raised()}
    assert len(seen) > 0.7 * len(CATALOGUE)


def test_every_code_that_is_raised_is_in_the_catalogue() -> None:
    assert {(code, place) for code, _, place in raised() if code not in CATALOGUE} == set()


def test_every_fact_that_a_text_names_is_given() -> None:
    holes = {
        (code, name, place)
        for code, given, place in raised()
        for name in named(code) - given
        if code in CATALOGUE
    }
    assert holes == set()


@pytest.mark.parametrize("code", CATALOGUE)
def test_texts_are_complete_with_their_facts(code: str) -> None:
    error = SyncError(code, **dict.fromkeys(named(code), "fact"))
    assert "<" not in f"{error.message}{error.remedy}"
    assert error.message.endswith(".")
    assert error.remedy
    assert "<" in str(SyncError(code)) if named(code) else "<" not in str(SyncError(code))


@pytest.mark.parametrize("name", ["my binding", "o'clock $(x)", "plain"])
@pytest.mark.parametrize("code", CATALOGUE)
def test_what_a_remedy_tells_to_type_keeps_every_name_one_word(code: str, name: str) -> None:
    remedy = CATALOGUE[code].remedy
    error = SyncError(code, **dict.fromkeys(named(code) - {"listing"}, name), listing="binding list")
    for command in commands(remedy):
        asked = [word for _, word, _, _ in string.Formatter().parse(command) if word not in {None, "listing"}]
        typed = command.format_map(dict.fromkeys(asked, quote(name)) | {"listing": "binding list"})
        assert f"`{typed}`" in error.remedy
        assert shlex.split(typed).count(name) == len(asked)


def commands(remedy: str) -> list[str]:
    """What stands between backticks."""
    return remedy.split("`")[1::2]


def test_enough_remedies_name_something_to_type() -> None:
    assert sum("{" in one for entry in CATALOGUE.values() for one in commands(entry.remedy)) > 15


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "1 run waits for"),
        ("1", "1 run waits for"),
        (0, "0 runs wait for"),
        (12_000, "12,000 runs wait for"),
    ],
)
def test_what_is_counted_is_in_its_number(count: object, expected: str) -> None:
    error = SyncError("WORKERS_SILENT", count=count, since="noon")
    assert error.message.startswith(expected)
    assert str(SyncError("WORKERS_SILENT")).startswith("WORKERS_SILENT: <count> runs wait")


def test_errors_survive_a_pickle() -> None:
    import pickle

    error = RateLimited("MC_BLOCKED", retry_after=3.0)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.code, again.retry_after) == ("MC_BLOCKED", 3.0)
