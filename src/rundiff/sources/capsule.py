"""Anything that speaks the Arrow PyCapsule interface: pyarrow, polars, pandas, DuckDB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from rundiff.errors import KeyFieldMissing, SourceError
from rundiff.sources.contract import ReadRequest
from rundiff.sources.typedreading import TypedReading, check_names

__all__ = ["CapsuleSource", "speaks_arrow"]

_PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")


def speaks_arrow(source: Any) -> bool:
    """Say whether an object has the Arrow PyCapsule interface for a table, a batch or a stream."""
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__")


class CapsuleSource:
    """A table in memory, or a stream that can be read once."""

    may_delete_without_count = True
    location = "rows"

    def __init__(self, source: Any) -> None:
        self._source = source

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[TypedReading]:
        """Begin one reading; see `contract.Source`."""
        reader = self._reader()
        check_names(reader.schema, "The table")
        missing = [name for name in request.primary_key if name not in reader.schema.names]
        if missing:
            raise KeyFieldMissing(
                f"The table has no field `{missing[0]}`, which the primary key names; it has "
                f"{', '.join(reader.schema.names)}."
            )
        yield TypedReading(lambda _: _batches(reader), request, None)

    def _reader(self) -> pa.RecordBatchReader:
        source = _with_named_index(self._source)
        try:
            if hasattr(source, "__arrow_c_stream__"):
                reader = pa.RecordBatchReader.from_stream(source)
            else:
                batch = pa.record_batch(source)
                reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise SourceError(
                f"The {type(source).__name__} can't be read as a table through its Arrow interface: {error}"
            ) from error
        # pandas hands on an index that nobody named: positions, which are no data of a record.
        hidden = [name for name in reader.schema.names if _PANDAS_INDEX.fullmatch(name)]
        if hidden and b"pandas" in (reader.schema.metadata or {}):
            schema = pa.schema([member for member in reader.schema if member.name not in hidden])
            batches = (batch.drop_columns(hidden) for batch in reader)
            return pa.RecordBatchReader.from_batches(schema, batches)
        return reader


def _with_named_index(source: Any) -> Any:
    """Make the named index of a pandas frame a field: it is data, often the key, and pandas leaves it out."""
    if type(source).__module__.partition(".")[0] != "pandas" or not hasattr(source, "reset_index"):
        return source
    return source.reset_index() if any(name is not None for name in source.index.names) else source


def _batches(reader: pa.RecordBatchReader) -> Iterator[tuple[pa.RecordBatch, Callable[[int], str]]]:
    done = 0
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"The table broke off after {done} rows: {error}") from error
        yield batch, _locator(done)
        done += batch.num_rows


def _locator(before: int) -> Callable[[int], str]:
    return lambda row: f"row {before + row + 1}"
