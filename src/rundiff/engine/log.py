"""The write log: one folder a run, one Parquet file an action, sorted by primary key signature.

Columns: `primary_key_signature`, `data_signature`, `primary_key` (struct), `data` (struct, null
where a deleted record's last data is not known) and `changed_fields`. The sequence of a record is
its place in deletes, then updates, then creates, from 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rundiff.baseline.columns import repeating_fields
from rundiff.baseline.order import SIGNATURE
from rundiff.database.contract import Sealed
from rundiff.database.logs import LogFormat
from rundiff.destinations.contract import ChangeBatch
from rundiff.errors import StorageError
from rundiff.model import Action
from rundiff.rowgroups import RowGroups

__all__ = [
    "BATCH_BYTES",
    "CREATES",
    "DELETES",
    "FILES",
    "UPDATES",
    "LogWriter",
    "change_batches",
    "log_format",
    "log_schema",
    "log_type",
    "read_log",
    "unreadable",
]

DELETES, UPDATES, CREATES = "deletes.parquet", "updates.parquet", "creates.parquet"
FILES = (DELETES, UPDATES, CREATES)
ROW_GROUP = 1 << 17
_SAMPLE = 4096
BATCH_BYTES = 128 << 20
"""Some bytes that a batch for a destination has at most."""


def log_schema(primary_key: pa.StructType, data: pa.StructType) -> pa.Schema:
    """Give the schema of a log file."""
    return pa.schema(
        [
            pa.field("primary_key_signature", SIGNATURE),
            pa.field("data_signature", SIGNATURE),
            pa.field("primary_key", primary_key),
            pa.field("data", data),
            pa.field("changed_fields", pa.list_(pa.string())),
        ]
    )


class LogWriter:
    """Write one file of the log, on a thread of its own; without records no file appears.

    Encoding takes longer than finding what to write, so the two go side by side.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._groups: RowGroups | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rundiff-log")
        self._under_way: deque[Future[None]] = deque()
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._under_way and kind is None:
                self._under_way.popleft().result()
            if self._groups is not None and kind is None:
                self._groups.end()
        finally:
            self._thread.shutdown(cancel_futures=True)
            if self._groups is not None:
                self._groups.abandon()
            if self._file is not None:
                self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append records; all batches have one schema. Errors of one batch may be raised with a later one."""
        if batch.num_rows == 0:
            return
        self.rows += batch.num_rows
        self._under_way.append(self._thread.submit(self._append, batch))
        if len(self._under_way) > 1:
            self._under_way.popleft().result()

    def _append(self, batch: pa.RecordBatch) -> None:
        if self._groups is None:
            repeating = [f"data.{name}" for name in repeating_fields(batch.column("data"))]
            options = {
                "compression": _compression(batch, repeating),
                "use_dictionary": repeating,
                # Records are in the order of their keys' signatures: of any other column, each row group has about
                # the same least and greatest value.
                "write_statistics": ["primary_key_signature"],
                # What is read back to be delivered must be what was written.
                "write_page_checksum": True,
            }
            self._file = self._path.open("wb")
            self._groups = RowGroups(self._file, batch.schema, options)
        self._groups.write(pa.Table.from_batches([batch]), ROW_GROUP)


def _compression(batch: pa.RecordBatch, repeating: list[str]) -> str | dict[str, str]:
    """Choose the columns to compress: those that become half as long or shorter, as a sample shows.

    To take a few values out of a column that is not compressed takes a small part of the time, and signatures,
    times and fractions hardly become shorter. In a log of less than a row group none of this matters.
    """
    if batch.num_rows < ROW_GROUP:
        return "lz4"
    sample = pa.BufferOutputStream()
    with pq.ParquetWriter(sample, batch.schema, compression="lz4", use_dictionary=repeating) as writer:
        writer.write_batch(batch.slice(0, _SAMPLE))
    group = pq.read_metadata(pa.BufferReader(sample.getvalue())).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {
        column.path_in_schema: "lz4"
        if 2 * column.total_compressed_size <= column.total_uncompressed_size
        else "none"
        for column in columns
    }


def read_log(path: Path, size: int = 1 << 17, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Read one file of the log, its checksums verified; raises `StorageError` if it is missing or damaged."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            # Row group by row group: `iter_batches` keeps what it gave of structs until its end (pyarrow 26).
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                yield from table.combine_chunks().to_batches(max_chunksize=size)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def log_type(path: Path, column: str) -> pa.DataType:
    """Give the type of a column of a log file; raises `StorageError` like `read_log`."""
    try:
        return pq.read_schema(path).field(column).type
    except (OSError, pa.ArrowException, KeyError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> StorageError:
    """Say that a file which the database names is missing or damaged."""
    what = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error})"
    return StorageError(
        f"the file {path} {what}; restore it from a backup, or `rundiff reset` the sync to start it anew"
    )


def log_format() -> LogFormat:
    """Tell a database that takes change sets apart what their files are."""
    return LogFormat(files=FILES, read=read_log, writer=LogWriter, json_text=_json_text)


def _json_text(array: pa.Array) -> pa.Array:
    from rundiff.destinations.render import json_text

    return json_text(array)


def change_batches(
    folder: Path, run: int, sealed: Sealed, size: int, after: int = 0
) -> Iterator[ChangeBatch]:
    """Read a run's log in the order of its sequences, from the one after `after`.

    All batches have `size` records but the last of each action, and but those that more would make longer than
    some `BATCH_BYTES`.
    """
    offset = 0
    for name, rows, action in (
        (DELETES, sealed.deletes, Action.DELETE),
        (UPDATES, sealed.updates, Action.UPDATE),
        (CREATES, sealed.creates, Action(sealed.new_action)),
    ):
        if rows and after < offset + rows:
            sequence = offset + 1
            for batch in _of_size(read_log(folder / name, size), size):
                last = sequence + batch.num_rows - 1
                if last > after:
                    skip = max(0, after + 1 - sequence)
                    yield ChangeBatch(
                        run=run,
                        first_sequence=sequence + skip,
                        action=action,
                        records=batch.slice(skip),
                    )
                sequence = last + 1
            if sequence != offset + rows + 1:
                raise unreadable(folder / name, ValueError(f"{rows:,} records expected"))
        offset += rows


def _of_size(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Put batches of at most `size` records together to such of exactly `size`; the last has what is left.

    Long records are put together up to `BATCH_BYTES` only: memory is bounded, and so are Arrow's 32-bit offsets.
    """
    parts: list[pa.RecordBatch] = []
    waiting = weight = 0
    for batch in batches:
        if parts and weight + batch.nbytes > BATCH_BYTES:
            yield _joined(parts)
            parts, waiting, weight = [], 0, 0
        lacking = size - waiting
        parts.append(batch.slice(0, lacking))
        waiting += batch.num_rows
        weight += batch.nbytes
        if waiting >= size:
            yield _joined(parts)
            waiting -= size
            parts = [batch.slice(lacking)] if waiting else []
            weight = sum(part.nbytes for part in parts)
    if parts:
        yield _joined(parts)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    return parts[0] if len(parts) == 1 else pa.concat_batches(parts)
