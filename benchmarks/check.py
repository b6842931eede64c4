"""Check what a contestant wrote against the extracts: `python -m benchmarks.check KIND …`, in its own process.

`changes FILE` counts a Parquet file of changes by action. `table FILE TABLE EXTRACT` compares a DuckDB
table with the extract that it should equal: as many rows, and the same bag of hashes over all columns.
Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

import duckdb


def main() -> None:
    """Check, and print what was found."""
    kind, *given = sys.argv[1:]
    found = _changes(*given) if kind == "changes" else _table(*given)
    sys.stdout.write(json.dumps(found) + "\n")


def _changes(path: str) -> dict[str, int]:
    counted = duckdb.execute(f"SELECT action, count(*) FROM '{path}' GROUP BY action").fetchall()
    found = dict(counted)
    return {
        "created": found.get("insert", 0) + found.get("create", 0),
        "updated": found.get("update", 0),
        "deleted": found.get("delete", 0),
    }


def _table(path: str, table: str, extract: str) -> dict[str, bool]:
    connection = duckdb.connect(path, read_only=True)
    # dlt makes naive times UTC ones: both sides are read in the table's types, in UTC.
    connection.execute("SET TimeZone = 'UTC'")
    columns = connection.execute(f"DESCRIBE FROM '{extract}'").fetchall()
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()}
    names = [name for name, *_ in columns]
    casts = ", ".join(f'CAST("{name}" AS {types[name]})' for name in names)
    bag = f"SELECT count(*), sum(hash({casts})::HUGEINT), bit_xor(hash({casts}))"
    held = connection.execute(f"{bag} FROM {table}").fetchone()
    expected = connection.execute(f"{bag} FROM '{extract}'").fetchone()
    return {"same": held == expected}


if __name__ == "__main__":
    main()
