"""Many rows in one statement, the same on SQLite and PostgreSQL.

On PostgreSQL the rows travel as one array a column. As parameters of their own, with the defaults of all columns among
them, 250 runs were 8,000 parameters, and a rush of 10,000 spent a third of its time on them (2026-11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, String, Table, TableValuedAlias, Text, bindparam, func, select, update
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeEngine

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def insert_into(into: type[DeclarativeBase] | Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what happens on a conflict. Only that dialect is imported: PostgreSQL's takes 20 ms."""
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(into)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(into)


def insert_missing(
    session: Session, into: type[DeclarativeBase], rows: Sequence[dict[str, Any]], returning: str
) -> list[Any]:
    """Insert those of `rows`, all with the same keys, that meet no unique constraint; their column `returning`."""
    if not rows:
        return []
    table = _table(into)
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        missing = insert_into(table, "sqlite").on_conflict_do_nothing().returning(table.c[returning])
        return list(connection.execute(missing, rows).scalars())
    given, values = _given(table, rows)
    statement = (
        insert_into(table, "postgresql")
        .from_select(list(rows[0]), select(given))
        .on_conflict_do_nothing()
        .returning(table.c[returning])
    )
    return list(connection.execute(statement, values).scalars())


def update_by_id(session: Session, of: type[DeclarativeBase], rows: Sequence[dict[str, Any]]) -> None:
    """Set each row's other values where the `id` is its own. What the session has loaded of them is not touched."""
    if not rows:
        return
    table = _table(of)
    connection = session.connection()
    names = [name for name in rows[0] if name != "id"]
    if connection.dialect.name == "sqlite":
        statement = update(table).where(table.c.id == bindparam("of_id"))
        changes = [{"of_id" if name == "id" else name: value for name, value in row.items()} for row in rows]
        connection.execute(statement.values({name: bindparam(name) for name in names}), changes)
        return
    given, values = _given(table, rows)
    connection.execute(
        update(table).where(table.c.id == given.c.id).values({name: given.c[name] for name in names}), values
    )


def _given(table: Table, rows: Sequence[dict[str, Any]]) -> tuple[TableValuedAlias, dict[str, list[Any]]]:
    """The rows as something to select from, and its parameters."""
    from sqlalchemy.dialects import postgresql

    names = list(rows[0])
    arrays: list[ColumnElement[Any]] = [
        bindparam(f"all_{name}", type_=postgresql.ARRAY(_sent(table.c[name].type))) for name in names
    ]
    given = func.unnest(*arrays).table_valued(*names, name="given").render_derived()
    return given, {f"all_{name}": [row[name] for row in rows] for name in names}


def _sent(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    # A cast to VARCHAR(n) would cut a longer text off in silence.
    return Text() if isinstance(kind, String) else kind


def _table(of: type[DeclarativeBase]) -> Table:
    table = of.__table__
    if not isinstance(table, Table):
        raise TypeError(f"{of} is no table")
    return table
