"""Into a PostgreSQL table: Rundiff, and dlt's merge of the same rows in one go.

Variants `rundiff`, `dlt` (its merge as it comes: delete and insert, rows as INSERT statements) and `dlt-adbc`
(its fastest way: `upsert`, Parquet by ADBC). The old extract is loaded into an empty server first; its time
is the figure `first_seconds`, and not counted. What counts is the new extract, which all are given whole. dlt
doesn't delete rows that went, which is left out of its work; where none went, its table is checked, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Read when dlt is imported: no requests to the outside, no progress on standard output.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from tests.servers.postgresql import PostgresqlServer

from benchmarks.peers.outcome import Job, Outcome, job, state

_BATCH_ROWS = 122_880
_PARTS = 2**20
"""A power of two, by which a score is multiplied without rounding."""
_HELD = (
    f"SELECT count(*), sum(id)::bigint, sum(floor(score * {_PARTS})::bigint)::bigint FROM benchmark.customers"
)
_Load = Callable[[str, Job, str], None]


def main() -> None:
    """Load both extracts one after the other, and look whether the table has the rows of the last."""
    given = job()
    began = time.perf_counter()
    load: _Load = _rundiff if given.variant == "rundiff" else _dlt
    with PostgresqlServer() as server:
        url = server.create_database("warehouse")
        first = _timed(load, url, given, given.old)
        second = _timed(load, url, given, given.new)
        with psycopg.connect(url) as connection:
            found = connection.execute(_HELD).fetchone()
    if given.variant == "rundiff" or not _any_went(given):
        table = pq.read_table(given.new, columns=["id", "score"])
        scores = np.floor(table["score"].to_numpy() * _PARTS).astype(np.int64)
        if found != (table.num_rows, int(table["id"].to_numpy().sum()), int(scores.sum())):
            raise RuntimeError(f"the table holds {found}")
    whole = time.perf_counter() - began
    state(Outcome(seconds=second, not_counted=whole - second, figures={"first_seconds": first}))


def _any_went(given: Job) -> bool:
    old, new = (pq.read_table(path, columns=["id"])["id"].to_numpy() for path in (given.old, given.new))
    return not bool(np.isin(old, new).all())


def _timed(load: _Load, url: str, given: Job, source: str) -> float:
    began = time.perf_counter()
    load(url, given, source)
    return time.perf_counter() - began


def _rundiff(url: str, given: Job, source: str) -> None:
    if not Path(f"{given.folder}/home").exists():
        with psycopg.connect(url) as connection:
            connection.execute("CREATE SCHEMA benchmark")
    command = [
        sys.executable,
        "-m",
        "rundiff",
        "sync",
        source,
        "--key",
        "id",
        "--name",
        "benchmark",
        "--to",
        url,
    ]
    command += ["--into", "benchmark.customers", "--home", f"{given.folder}/home", "--json", "--quiet"]
    done = subprocess.run(  # noqa: S603 -- our own command
        [*command, "--max-delete-percent", "100"], check=True, capture_output=True, text=True
    )
    if json.loads(done.stdout)["status"] != "committed":
        raise RuntimeError(done.stdout)


def _dlt(url: str, given: Job, source: str) -> None:
    import dlt

    fast = given.variant == "dlt-adbc"
    pipeline = dlt.pipeline(
        pipeline_name="benchmark",
        pipelines_dir=f"{given.folder}/pipelines",
        destination=dlt.destinations.postgres(url),
        dataset_name="benchmark",
    )

    @dlt.resource(
        name="customers",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "upsert" if fast else "delete-insert"},
    )
    def customers() -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=_BATCH_ROWS):
            yield pa.Table.from_batches([batch])

    pipeline.run(customers(), loader_file_format="parquet" if fast else None).raise_on_failed_jobs()


if __name__ == "__main__":
    main()
