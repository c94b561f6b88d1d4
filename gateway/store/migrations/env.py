"""Run by Alembic, on the connection that `migrate` hands over: it holds the lock and the transaction."""

from alembic import context

connection = context.config.attributes["connection"]
# SQLite alters a table by copying it: that is what batch mode is for.
context.configure(connection=connection, render_as_batch=connection.dialect.name == "sqlite")
with context.begin_transaction():
    context.run_migrations()
