"""dlt: merge with the strategy `cdc` and `skip_unchanged_rows`, whole snapshots into a DuckDB table.

Batches of Arrow tables are its fastest way in: importing the Parquet file as it is (`mark.with_file_import`)
took as long. It doesn't say what it changed, so its table is checked afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

# Read when dlt is imported: no requests to the outside, no progress on standard output.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.outcome import Job, Outcome, job, state

_BATCH_ROWS = 122_880


def main() -> None:
    """Merge the extract into the table `benchmark.customers`."""
    given = job()
    started = time.perf_counter()
    folder = Path(given.folder)
    pipeline = dlt.pipeline(
        pipeline_name="benchmark",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.duckdb(str(folder / "warehouse.duckdb")),
        dataset_name="benchmark",
    )
    pipeline.run(_snapshot(given), loader_file_format="parquet").raise_on_failed_jobs()
    state(Outcome(seconds=time.perf_counter() - started))


def _snapshot(given: Job) -> object:
    @dlt.resource(
        name="customers",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "cdc", "skip_unchanged_rows": True},
    )
    def customers() -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(given.source).iter_batches(batch_size=_BATCH_ROWS):
            yield pa.Table.from_batches([batch])

    return customers()


if __name__ == "__main__":
    main()
