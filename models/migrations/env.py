"""Alembic's entry: runs on the connection that `models/schema.py` hands over."""

from alembic import context
from sqlalchemy import text

from models.tables import Base

for table in Base.metadata.tables.values():
    for index in table.indexes:
        for dialect, rows in index.info.get("where", {}).items():
            index.dialect_options[dialect]["where"] = text(rows)

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
