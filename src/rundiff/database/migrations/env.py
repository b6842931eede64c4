"""Run by Alembic: applies the versions in one transaction of the connection that it is given."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

attributes = context.config.attributes
connection, schema = attributes["connection"], attributes["schema"]
if schema is not None:
    quoted = schema.replace('"', '""')
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{quoted}"'.replace(":", r"\:")))
    connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": f'"{quoted}"'})
context.configure(
    connection=connection,
    version_table=attributes["version_table"],
    # The caller began the transaction, in which it holds a lock.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
