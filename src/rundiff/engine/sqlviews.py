"""The SQL views: `sync_write_records`, `runs`, `syncs` and `failures`, queried with DuckDB."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from rundiff.engine.inspect import find_sync
from rundiff.engine.log import CREATES, DELETES, UPDATES
from rundiff.engine.session import Backends
from rundiff.errors import ConfigurationError

if TYPE_CHECKING:
    import duckdb

    from rundiff.database.contract import StoredRun, StoredSync

__all__ = ["MOST_FETCHED", "Window", "query"]

_RECORDS = """
SELECT
    f.sync_id, f.run_id, f."offset" + p.file_row_number + 1 AS sequence,
    p.primary_key_signature, p.data_signature, f.destination_action,
    CASE
        WHEN x.state = 'open' OR x.state = 'discarded' THEN 'failed'
        WHEN x.state = 'superseded' THEN 'failed'
        WHEN f.committed OR f."offset" + p.file_row_number + 1 <= f.acknowledged THEN 'written'
        ELSE 'pending'
    END AS status,
    to_json(p.data) AS data, to_json(p.primary_key) AS primary_key, p.changed_fields,
    CASE WHEN f.committed OR f."offset" + p.file_row_number + 1 <= f.acknowledged THEN 1 ELSE 0 END
        + coalesce(x.attempts - CASE WHEN f.committed THEN 1 ELSE 0 END, 0) AS attempts,
    x.error, f.created_at, f.updated_at
FROM read_parquet([{paths}], filename = true, file_row_number = true) AS p
JOIN _files AS f ON f.path = p.filename
LEFT JOIN _failures AS x
    ON x.sync_id = f.sync_id AND x.run = f.run_id AND x.sequence = f."offset" + p.file_row_number + 1
"""

_NO_RECORDS = """
SELECT NULL::VARCHAR AS sync_id, NULL::BIGINT AS run_id, NULL::BIGINT AS sequence,
    NULL::BLOB AS primary_key_signature, NULL::BLOB AS data_signature, NULL::VARCHAR AS destination_action,
    NULL::VARCHAR AS status, NULL::JSON AS data, NULL::JSON AS primary_key,
    NULL::VARCHAR[] AS changed_fields, NULL::BIGINT AS attempts, NULL::VARCHAR AS error,
    NULL::TIMESTAMPTZ AS created_at, NULL::TIMESTAMPTZ AS updated_at
WHERE false
"""
_UNNAMED = "error('write sync_write_records out in the query')::BOOLEAN"


MOST_FETCHED = 10**9
"""Bytes of write logs that a query may fetch from a database on a server."""
_RECORDS_VIEW = "sync_write_records"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The runs whose write records a query sees."""

    syncs: tuple[str, ...] = ()
    """The names of the only syncs; none: all."""
    last: int | None = None
    """So many of each sync's last runs that have write records; None: all."""

    def runs(self, backends: Backends) -> list[tuple[StoredSync, StoredRun]]:
        """List them."""
        found = []
        wanted = [find_sync(backends, name) for name in self.syncs] or backends.database.syncs()
        for sync in wanted:
            sealed = [run for run in backends.database.runs(sync.sync_id) if run.sealed and run.sealed.total]
            found += [(sync, run) for run in sealed[: self.last]]
        return found


def query(backends: Backends, text: str, window: Window | None = None) -> pa.Table:
    """Run one read-only query; raises `ConfigurationError` with DuckDB's own words.

    Write logs are fetched only for a query that names their view, and not if they are more than `MOST_FETCHED`.
    """
    import duckdb

    runs = (window or Window()).runs(backends)
    named = _RECORDS_VIEW in text.casefold()
    size = backends.log.to_fetch([(sync.sync_id, run.run) for sync, run in runs]) if named else 0
    if size > MOST_FETCHED:
        raise ConfigurationError(
            f"the query asks for the write records of {len(runs):,} runs, and {size / 1e9:,.1f} GB of them would have "
            f"to be fetched from {backends.database.place}, more than {MOST_FETCHED / 1e9:,.0f} GB: choose runs by "
            f"--last N and --sync NAME, or query the table {_RECORDS_VIEW} of that database itself"
        )

    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        _register(connection, backends, runs if named else None)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        relation = connection.sql(text)
        return pa.table({}) if relation is None else relation.to_arrow_table()
    except duckdb.Error as error:
        raise ConfigurationError(f"the query failed: {error}") from error
    finally:
        connection.close()


Runs = Sequence[tuple["StoredSync", "StoredRun"]]


def _register(connection: duckdb.DuckDBPyConnection, backends: Backends, runs: Runs | None) -> None:
    tables = backends.database.tables()
    for name, types in _TABLES.items():
        rows = tables[name]
        columns = {column: pa.array([row[column] for row in rows], kind) for column, kind in types.items()}
        connection.register(f"_{name}", pa.table(columns))
    connection.execute(
        "CREATE VIEW syncs AS SELECT * REPLACE (created_at::TIMESTAMPTZ AS created_at) FROM _syncs"
    )
    connection.execute(
        "CREATE VIEW runs AS SELECT s.name AS sync, r.* REPLACE (r.started_at::TIMESTAMPTZ AS started_at,"
        " r.finished_at::TIMESTAMPTZ AS finished_at, r.result::JSON AS result)"
        " FROM _runs AS r JOIN _syncs AS s USING (sync_id)"
    )
    connection.execute("CREATE VIEW failures AS SELECT * FROM _failures")
    if runs is None:
        # In case that it is made up of parts and not named: an error, and never a view that looks empty.
        connection.execute(f"CREATE VIEW {_RECORDS_VIEW} AS {_NO_RECORDS.replace('false', _UNNAMED)}")
        return
    groups, files = _log_files(backends, runs)
    connection.register("_files", pa.Table.from_pylist(files, _FILES))
    # One part for each shape of data: the shapes of several syncs meet only as JSON.
    parts = [
        # A home whose path has brackets or stars is no pattern.
        _RECORDS.format(paths=", ".join(_text(glob.escape(path)) for path in paths))
        for paths in groups
    ]
    connection.execute(f"CREATE VIEW {_RECORDS_VIEW} AS {' UNION ALL BY NAME '.join(parts) or _NO_RECORDS}")
    if groups:
        named = {name for paths in groups for path in paths for name in (path, glob.escape(path))}
        allowed = ", ".join(_text(name) for name in sorted(named))
        connection.execute(f"SET allowed_paths = [{allowed}]")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_FILES = pa.schema(
    [
        ("path", pa.string()),
        ("sync_id", pa.string()),
        ("run_id", pa.int64()),
        ("offset", pa.int64()),
        ("destination_action", pa.string()),
        ("committed", pa.bool_()),
        ("acknowledged", pa.int64()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("updated_at", pa.timestamp("us", "UTC")),
    ]
)

_TEXT, _WHOLE = pa.string(), pa.int64()
_TABLES: dict[str, dict[str, pa.DataType]] = {
    "syncs": {
        "sync_id": _TEXT,
        "name": _TEXT,
        "source": _TEXT,
        "primary_key": _TEXT,
        "destination": _TEXT,
        "created_at": _TEXT,
        "manifest": _TEXT,
        "generation": _WHOLE,
    },
    "runs": {
        "sync_id": _TEXT,
        "run": _WHOLE,
        "kind": _TEXT,
        "status": _TEXT,
        "started_at": _TEXT,
        "finished_at": _TEXT,
        "result": _TEXT,
    },
    "failures": {
        "sync_id": _TEXT,
        "run": _WHOLE,
        "sequence": _WHOLE,
        "primary_key_signature": pa.binary(),
        "destination_action": _TEXT,
        "primary_key": _TEXT,
        "error": _TEXT,
        "outcome": _TEXT,
        "state": _TEXT,
        "attempts": _WHOLE,
        "created_at": _TEXT,
        "updated_at": _TEXT,
    },
}


def _log_files(backends: Backends, runs: Runs) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """List the log's files, grouped by schema, with what the view needs to know of each."""
    import pyarrow.parquet as pq

    groups: dict[bytes, list[str]] = {}
    files = []
    for sync, run in runs:
        if run.sealed is None:
            continue
        done = sync.acknowledged
        acknowledged = done.sequence if done is not None and done.run == run.run else 0
        folder = backends.log.folder(sync.sync_id, run.run)
        offset = 0
        for name, rows, action in (
            (DELETES, run.sealed.deletes, "delete"),
            (UPDATES, run.sealed.updates, "update"),
            (CREATES, run.sealed.creates, run.sealed.new_action),
        ):
            path = folder / name
            if rows and path.exists():
                shape = pq.read_schema(path).remove_metadata().serialize().to_pybytes()
                groups.setdefault(shape, []).append(str(path))
                files.append(
                    {
                        "path": str(path),
                        "sync_id": sync.sync_id,
                        "run_id": run.run,
                        "offset": offset,
                        "destination_action": action,
                        "committed": run.manifest is not None,
                        "acknowledged": acknowledged,
                        "created_at": run.started_at,
                        "updated_at": run.finished_at or run.started_at,
                    }
                )
            offset += rows
    return list(groups.values()), files
