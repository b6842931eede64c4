"""The schema of the PostgreSQL database, version by version (Alembic)."""
