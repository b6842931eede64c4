"""Records that change back and forth in the last runs: which ones, how often, and in which fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rundiff.baseline.order import prefixes, words
from rundiff.database.contract import Database, StoredRun, StoredSync
from rundiff.database.flaps import FLAPS, RETURNS, Flaps, described
from rundiff.engine.log import CREATES, DELETES, UPDATES, log_format, unreadable
from rundiff.engine.session import Backends
from rundiff.engine.views import Flapping
from rundiff.errors import StorageError

__all__ = ["MOST_RECORDS", "WINDOW", "find_flapping"]

WINDOW = 10
"""Committed runs that are looked at."""
READ_BACK = 5 * WINDOW
"""Runs among which these are looked for: failed ones and those that a reset made void don't count."""
MOST_RECORDS = 250_000
"""As many of their write records are looked at, about; of more, an even part of the keys."""

_KEY, _DATA = "primary_key_signature", "data_signature"
_KEYS = 1 << 64


def find_flapping(backends: Backends, sync: StoredSync, to_run: int | None = None) -> Flapping | None:
    """Look at the last committed runs, up to `to_run` where it is given.

    A record flaps if it came back to an earlier state twice or more: its data, or being gone. Gives None
    where there are too few runs to tell, and where their write logs can't be read: that must not stand in
    the way of looking.
    """
    runs = _window(_recent(backends.database, sync.sync_id, to_run), to_run)
    if len(runs) < RETURNS + 2:
        return None
    looked = list(runs)
    if _records(looked) > MOST_RECORDS:
        # What fills a baseline is many records, and changes none of them.
        looked = [run for run in looked if run.result.get("baseline") != "first"]
    total = _records(looked)
    part = MOST_RECORDS / total if total > MOST_RECORDS else 1.0
    below = int(_KEYS * part) if part < 1 else None
    try:
        found = backends.log.flaps(sync.sync_id, sorted(run.run for run in looked), below)
        if found is None:
            found = _in_folders([file for run in looked for file in _files(backends, sync, run)], below)
    except StorageError:
        return None
    return Flapping(
        runs=len(looked),
        from_run=looked[-1].run,
        to_run=looked[0].run,
        count=round(found.count / part),
        estimated=part < 1 and found.count > 0,
        sample=found.sample,
    )


def _recent(database: Database, sync_id: str, to_run: int | None) -> Sequence[StoredRun]:
    """Read some runs, newest first: enough that the window is among them, unless most of them failed."""
    newest = database.runs(sync_id, 1)
    later = max(newest[0].run - to_run, 0) if newest and to_run is not None else 0
    return database.runs(sync_id, later + READ_BACK)


def _window(runs: Sequence[StoredRun], to_run: int | None) -> list[StoredRun]:
    """Choose the last runs that count, newest first: not those before a reset or rolled back."""
    counting = [
        run
        for run in runs
        if run.manifest is not None
        and run.sealed is not None
        and "void" not in run.details
        and (to_run is None or run.run <= to_run)
    ]
    return counting[:WINDOW]


def _records(runs: Sequence[StoredRun]) -> int:
    return sum(run.sealed.total for run in runs if run.sealed is not None)


File = tuple[int, bool, Path]
"""Of a log: the run, whether it holds the deletes, where it is."""


def _files(backends: Backends, sync: StoredSync, run: StoredRun) -> Iterator[File]:
    folder, sealed = backends.log.folder(sync.sync_id, run.run), run.sealed
    if sealed is None:
        return
    for name, rows in ((DELETES, sealed.deletes), (UPDATES, sealed.updates), (CREATES, sealed.creates)):
        if rows:
            yield run.run, name == DELETES, folder / name


def _in_folders(files: Sequence[File], below: int | None) -> Flaps:
    """Ask DuckDB; the signatures of the keys that count are in memory, 73 bytes a record."""
    import duckdb

    bound = None if below is None else below.to_bytes(9, "big")[1:]
    parts = []
    for run, gone, path in files:
        for group in _groups(path, [_KEY, _DATA], lambda low, _: bound is None or low < bound):
            counts = None if below is None else pa.array(prefixes(words(group.column(_KEY))) < below)
            table = group if counts is None else group.filter(counts)
            keys, data = (table.column(name).cast(pa.binary()) for name in (_KEY, _DATA))
            same = [pa.repeat(pa.scalar(value), len(keys)) for value in (run, gone)]
            parts.append(pa.table([keys, data, *same], ["key", "data", "run", "gone"]))
    if not parts:
        return Flaps(0, [])
    with duckdb.connect() as connection:
        connection.register("_records", pa.concat_tables(parts))
        found = connection.sql(FLAPS.format(records="SELECT * FROM _records")).to_arrow_table().to_pylist()
    return described(found, _details(files, {row["key"] for row in found}))


def _details(files: Sequence[File], wanted: Set[bytes]) -> Iterator[tuple[bytes, str, list[str] | None]]:
    """Find the write records of a few keys: signature, primary key as JSON, changed fields."""
    json_text, values = log_format().json_text, pa.array(sorted(wanted), pa.binary())
    for _, _, path in files:
        for table in _groups(
            path,
            [_KEY, "primary_key", "changed_fields"],
            lambda low, high: any(low <= key <= high for key in wanted),
        ):
            rows = table.filter(pc.is_in(table.column(_KEY).cast(pa.binary()), value_set=values))
            for batch in rows.combine_chunks().to_batches():
                yield from zip(
                    batch.column(_KEY).to_pylist(),
                    json_text(batch.column("primary_key")).to_pylist(),
                    batch.column("changed_fields").to_pylist(),
                    strict=True,
                )


def _groups(path: Path, columns: list[str], inside: Callable[[bytes, bytes], bool]) -> Iterator[pa.Table]:
    """Read the row groups of a log file whose lowest and highest key are `inside`."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                bounds = file.metadata.row_group(group).column(0).statistics
                if inside(bounds.min, bounds.max):
                    yield file.read_row_group(group, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
