"""Alembic migrations of the registry; they travel inside the package."""
