"""DuckDB: one FULL OUTER JOIN of both extracts, which keeps no state between runs.

Variants: `raw` compares all columns and counts; `write` also writes the changed rows into a Parquet
file, as Rundiff does; `hash` compares hash() of all columns instead (64 bits, so changes may collide).
"""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

from benchmarks.peers.outcome import Job, Outcome, job, state

_KIND = """CASE WHEN o.id IS NULL THEN 'insert' WHEN n.id IS NULL THEN 'delete'
 WHEN {differs} THEN 'update' END"""


def main() -> None:
    """Join, count, and state the counts."""
    given = job()
    started = time.perf_counter()
    connection = duckdb.connect()
    connection.execute(f"SET temp_directory = '{given.folder}/spill'")
    connection.execute("SET preserve_insertion_order = false")
    columns = [name for name, *_ in connection.execute(f"DESCRIBE FROM '{given.old}'").fetchall()]
    rows = connection.execute(_query(given, columns)).fetchall()
    seconds = time.perf_counter() - started
    if given.variant == "write":
        written = f"SELECT action, count(*) FROM '{_changes_path(given)}' GROUP BY action"
        rows = connection.execute(written).fetchall()
    found = dict(rows)
    state(
        Outcome(
            seconds=seconds,
            not_counted=time.perf_counter() - started - seconds,
            created=found.get("insert", 0),
            updated=found.get("update", 0),
            deleted=found.get("delete", 0),
        )
    )


def _query(given: Job, columns: list[str]) -> str:
    quoted = [f'"{name}"' for name in columns]
    if given.variant == "hash":
        digest = f"SELECT id, hash({', '.join(quoted)}) AS digest"
        both = f"({digest} FROM '{given.old}') o FULL OUTER JOIN ({digest} FROM '{given.new}') n"
        differs = "o.digest <> n.digest"
    else:
        both = f"'{given.old}' o FULL OUTER JOIN '{given.new}' n"
        differs = " OR ".join(f"o.{name} IS DISTINCT FROM n.{name}" for name in quoted if name != '"id"')
    kind = _KIND.format(differs=differs)
    if given.variant == "write":
        changed = f"SELECT {kind} AS action, o, n FROM {both} ON o.id = n.id WHERE {kind} IS NOT NULL"
        return f"COPY ({changed}) TO '{_changes_path(given)}' (FORMAT parquet)"
    return f"SELECT {kind} AS kind, count(*) FROM {both} ON o.id = n.id GROUP BY kind"


def _changes_path(given: Job) -> Path:
    return Path(given.folder) / "changes.parquet"


if __name__ == "__main__":
    main()
