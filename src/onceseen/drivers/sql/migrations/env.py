"""Alembic's entry: runs the steps on the connection that `SqliteDatabase.migrate` hands over."""

from alembic import context

from onceseen.drivers.sql.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():  # a step that breaks leaves nothing behind
    context.run_migrations()
