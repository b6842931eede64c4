-- The tables of the embedded database. Times are ISO 8601 in UTC; lists and mappings are JSON.
CREATE TABLE syncs (
    sync_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    primary_key TEXT NOT NULL,
    destination TEXT NOT NULL,
    shared_table INTEGER NOT NULL DEFAULT 0,
    established INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    next_run INTEGER NOT NULL DEFAULT 1,
    token INTEGER NOT NULL DEFAULT 0,
    manifest TEXT,
    generation INTEGER NOT NULL DEFAULT 0,
    acknowledged_run INTEGER,
    acknowledged_sequence INTEGER,
    acknowledged_marker TEXT,
    held TEXT
) STRICT;

CREATE TABLE runs (
    sync_id TEXT NOT NULL REFERENCES syncs (sync_id),
    run INTEGER NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    token INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    result TEXT NOT NULL,
    details TEXT NOT NULL,
    sealed TEXT,
    manifest TEXT,
    PRIMARY KEY (sync_id, run)
) STRICT, WITHOUT ROWID;

CREATE TABLE failures (
    sync_id TEXT NOT NULL REFERENCES syncs (sync_id),
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    primary_key_signature BLOB,
    destination_action TEXT,
    primary_key TEXT,
    error TEXT NOT NULL,
    outcome TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (sync_id, run, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX failures_open ON failures (sync_id, state, primary_key_signature);

CREATE TABLE leases (
    sync_id TEXT PRIMARY KEY REFERENCES syncs (sync_id),
    holder TEXT NOT NULL,
    token INTEGER NOT NULL,
    acquired_at TEXT NOT NULL,
    heartbeat_at TEXT NOT NULL
) STRICT;

-- Since version 2: runs that several workers make together. expires_at is in seconds since 1970.
CREATE TABLE joined_runs (
    sync_id TEXT NOT NULL REFERENCES syncs (sync_id),
    name TEXT NOT NULL,
    token INTEGER NOT NULL,
    state TEXT NOT NULL,
    run INTEGER,
    expires_at REAL NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (sync_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE shares (
    sync_id TEXT NOT NULL,
    name TEXT NOT NULL,
    batch TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (sync_id, name, batch)
) STRICT, WITHOUT ROWID;
