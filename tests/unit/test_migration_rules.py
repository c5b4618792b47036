"""A migration expands, so that the release before it works on beside it. One that contracts says from when it may."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import schema

RELEASED = "0006"  # of release 0.1.0: nothing ran beside what came before
VERSIONS = [
    path for path in sorted((schema.MIGRATIONS / "versions").glob("[0-9]*.py")) if path.stem[:4] > RELEASED
]
# What the release before this one could trip over, in alembic's words and in SQL's.
CONTRACTING = {
    *("drop_table", "drop_column", "drop_constraint", "rename_table", "alter_column"),
    *("create_unique_constraint", "create_check_constraint", "create_foreign_key"),
}
CONTRACTING_SQL = re.compile(r"\b(DROP|RENAME|ALTER|TRUNCATE)\b", re.IGNORECASE)


def breaks(source: str) -> list[str]:
    """What `upgrade` does that processes of the release before would not survive."""
    [upgrade] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade"
    ]
    made = {_text(call.args[0]) for call in _calls(upgrade) if _name(call) == "create_table"}
    return [found for call in _calls(upgrade) if (found := _mistake(call, made))]


def _mistake(call: ast.Call, made: set[str]) -> str:
    name = _name(call)
    options = {word.arg: word.value for word in call.keywords}
    if name in CONTRACTING:
        return name
    if name == "add_column":
        column = next(one for one in _calls(call) if _name(one) == "Column")
        given = {word.arg: word.value for word in column.keywords}
        required = _text(given.get("nullable")) != "True"
        return "a required column without a default" if required and "server_default" not in given else ""
    if name == "create_index" and _text(options.get("unique")) == "True":
        table = _text(call.args[1]) if len(call.args) > 1 else ""
        return "" if table in made else "a unique index"
    if name == "execute":
        words = [
            one.value
            for one in ast.walk(call)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]
        return "SQL that takes away" if any(map(CONTRACTING_SQL.search, words)) else ""
    return ""


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Call))


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _text(node: ast.expr | None) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def contracts(source: str) -> str:
    """What a revision says of itself: the first schema whose release does not use what it takes away."""
    found = re.search(r"^contracts = '(\d{4})'$", source, flags=re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem[:4])
def test_it_expands_or_says_that_it_contracts(path: Path) -> None:
    source = path.read_text()
    if floor := contracts(source):
        assert floor < path.stem[:4], (
            "the release before must be able to work with it: contract one release later"
        )
    else:
        assert breaks(source) == []


def test_the_floor_is_what_the_migrations_say() -> None:
    """0016 brought it."""
    assert max("0016", *(contracts(path.read_text()) for path in VERSIONS)) == schema.FLOOR


@pytest.mark.parametrize(
    "statement",
    [
        "op.drop_column('sync_run', 'actor')",
        "op.rename_table('a', 'b')",
        "op.alter_column('sync_run', 'actor', nullable=False)",
        "op.alter_column('sync_run', 'actor', new_column_name='who')",
        "op.add_column('sync_run', sa.Column('x', sa.Integer(), nullable=False))",
        "op.add_column('sync_run', sa.Column('x', sa.Integer()))",
        "op.create_index('x', 'sync_run', ['actor'], unique=True)",
        "op.execute('alter table sync_run drop column actor')",
        "op.execute(sa.text('DROP INDEX x'))",
        "with op.batch_alter_table('sync_run') as batch:\n        batch.drop_column('actor')",
        "op.create_unique_constraint('x', 'sync_run', ['actor'])",
    ],
)
def test_the_rule_sees_what_takes_away(statement: str) -> None:
    assert len(breaks(f"def upgrade():\n    {statement}\n")) == 1


def test_the_rule_lets_pass_what_adds() -> None:
    added = """
def upgrade():
    op.create_table('a', sa.Column('x', sa.Integer(), nullable=False))
    op.create_index('b', 'a', ['x'], unique=True)
    op.add_column('sync_run', sa.Column('x', sa.Integer(), server_default='0', nullable=False))
    op.add_column('sync_run', sa.Column('y', sa.Integer(), nullable=True))
    op.execute("UPDATE sync_run SET y = 1")

def downgrade():
    op.drop_table('a')
"""
    assert breaks(added) == []
