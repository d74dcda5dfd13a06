"""Alembic environment: online only, on the connection that pbserv.registry.migrate hands over."""

from __future__ import annotations

from alembic import context

from pbserv.registry.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
