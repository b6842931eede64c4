"""Runs that several workers make together."""

from __future__ import annotations

from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "downgrade", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # expires_at is in seconds since 1970, by the server's clock.
    """
    CREATE TABLE rundiff_joined_runs (
        sync_id uuid NOT NULL REFERENCES rundiff_syncs (sync_id),
        name text NOT NULL,
        token bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('open', 'sealing', 'closed')),
        run bigint,
        expires_at double precision NOT NULL,
        content text NOT NULL,
        PRIMARY KEY (sync_id, name)
    )
    """,
    """
    CREATE TABLE rundiff_shares (
        sync_id uuid NOT NULL REFERENCES rundiff_syncs (sync_id),
        name text NOT NULL,
        batch text NOT NULL,
        content text NOT NULL,
        PRIMARY KEY (sync_id, name, batch)
    )
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Remove the tables, and all that they hold."""
    for table in ("shares", "joined_runs"):
        op.execute(f"DROP TABLE rundiff_{table}")
