"""The first tables."""

from __future__ import annotations

from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "downgrade", "revision", "upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# JSON columns are json and not jsonb: jsonb refuses the escape of U+0000, which records may hold.
_STATEMENTS = (
    """
    CREATE TABLE rundiff_syncs (
        sync_id uuid PRIMARY KEY,
        name text NOT NULL UNIQUE,
        source text NOT NULL,
        primary_key json NOT NULL,
        destination text NOT NULL,
        shared_table boolean NOT NULL DEFAULT false,
        established boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        next_run bigint NOT NULL DEFAULT 1,
        token bigint NOT NULL DEFAULT 0,
        manifest text,
        generation bigint NOT NULL DEFAULT 0,
        acknowledged_run bigint,
        acknowledged_sequence bigint,
        acknowledged_marker text,
        held json,
        last_change uuid
    )
    """,
    """
    CREATE TABLE rundiff_runs (
        sync_id uuid NOT NULL REFERENCES rundiff_syncs (sync_id),
        run bigint NOT NULL,
        kind text NOT NULL,
        status text NOT NULL,
        token bigint NOT NULL,
        started_at timestamptz NOT NULL,
        finished_at timestamptz,
        result json NOT NULL,
        details json NOT NULL,
        sealed json,
        manifest text,
        PRIMARY KEY (sync_id, run)
    )
    """,
    "CREATE INDEX rundiff_runs_started_at ON rundiff_runs (started_at DESC, run DESC)",
    """
    CREATE TABLE rundiff_failures (
        sync_id uuid NOT NULL REFERENCES rundiff_syncs (sync_id),
        run bigint NOT NULL,
        sequence bigint NOT NULL,
        primary_key_signature bytea,
        destination_action text,
        primary_key text,
        error text NOT NULL,
        outcome text NOT NULL,
        state text NOT NULL,
        attempts integer NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (sync_id, run, sequence)
    )
    """,
    "CREATE INDEX rundiff_failures_open ON rundiff_failures (sync_id, state, primary_key_signature)",
    """
    CREATE TABLE rundiff_leases (
        sync_id uuid PRIMARY KEY REFERENCES rundiff_syncs (sync_id),
        holder text NOT NULL,
        token bigint NOT NULL,
        acquired_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    # The half of each page that is left free takes the rows whose status changes, on the same page: the
    # four indexes need no new entries then.
    """
    CREATE TABLE sync_write_records (
        sync_id uuid NOT NULL,
        run_id bigint NOT NULL,
        sequence bigint NOT NULL,
        primary_key_signature bytea NOT NULL,
        data_signature bytea NOT NULL,
        destination_action text NOT NULL
            CHECK (destination_action IN ('create', 'insert', 'update', 'delete')),
        status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'written', 'failed')),
        data json,
        primary_key json NOT NULL,
        changed_fields text[],
        attempts integer NOT NULL DEFAULT 0,
        error text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (sync_id, run_id, sequence)
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX sync_write_records_primary_key_signature ON sync_write_records (primary_key_signature)",
    "CREATE INDEX sync_write_records_data_signature ON sync_write_records (data_signature)",
    """
    CREATE INDEX sync_write_records_primary_key_signature_sync_id
        ON sync_write_records (primary_key_signature, sync_id)
    """,
    """
    CREATE TABLE rundiff_logs (
        sync_id uuid NOT NULL REFERENCES rundiff_syncs (sync_id),
        run bigint NOT NULL,
        kind text NOT NULL CHECK (kind IN ('log', 'held')),
        seal uuid NOT NULL,
        PRIMARY KEY (sync_id, run, kind)
    )
    """,
    """
    CREATE TABLE rundiff_log_chunks (
        sync_id uuid NOT NULL,
        run bigint NOT NULL,
        kind text NOT NULL,
        file text NOT NULL,
        chunk integer NOT NULL,
        records integer,
        first_signature bytea,
        last_signature bytea,
        content bytea NOT NULL,
        PRIMARY KEY (sync_id, run, kind, file, chunk),
        FOREIGN KEY (sync_id, run, kind) REFERENCES rundiff_logs ON DELETE CASCADE
    )
    """,
    # The content is compressed already.
    "ALTER TABLE rundiff_log_chunks ALTER COLUMN content SET STORAGE EXTERNAL",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Remove the tables, and all that they hold."""
    for table in ("log_chunks", "logs", "leases", "failures", "runs"):
        op.execute(f"DROP TABLE rundiff_{table}")
    op.execute("DROP TABLE sync_write_records")
    op.execute("DROP TABLE rundiff_syncs")
