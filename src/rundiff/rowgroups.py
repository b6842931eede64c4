"""Parquet files whose row groups are encoded side by side.

Arrow encodes a file on one core. Here each row group becomes a file of its own in memory, several at a time; their
bodies are then written one after the other, under one footer. Readers see a file like any other. A column that stands
in another file as it is to be can be copied from there, pages and all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from rundiff.footers import (
    Chunk,
    Fields,
    Footer,
    body_and_footer,
    chunks,
    joined_footer,
    read_footer,
    rows_of,
    with_column,
)

__all__ = ["GROUP_BYTES", "RowGroup", "RowGroups"]

GROUP_BYTES = 32 << 20
"""Of a batch with more values than this, row groups have about as much."""


# Compressions that every reader of Parquet knows: none, Snappy, gzip, Zstandard.
_KNOWN_CODECS = (0, 1, 2, 6)


class RowGroup(msgspec.Struct, frozen=True):
    """A row group of a file."""

    path: Path
    number: int


class RowGroups:
    """A Parquet file that is written into a stream; `options` are those of `pyarrow.parquet.ParquetWriter`.

    The stream is not closed.
    """

    def __init__(self, stream: BinaryIO, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self._stream = stream
        self._schema = schema
        self._options = dict(options)
        self._frame: Footer | None = None
        """What the file says of itself but for its row groups."""
        self._groups: list[Fields] = []
        self._end = 0
        self._other: tuple[Path, Footer] | None = None
        """The file that columns were copied from last."""
        self._buffer = bytearray()

    def write(self, rows: pa.Table, most: int) -> None:
        """Append rows as row groups of at most `most` rows; after an error of Arrow's the file has none of them."""
        count = max(-(-rows.num_rows // most), -(-rows.nbytes // GROUP_BYTES))
        step = max(1, -(-rows.num_rows // max(1, count)))
        parts = [rows.slice(start, step) for start in range(0, rows.num_rows, step)]
        # What was written before an error stays in the stream as bytes that no footer names.
        if len(parts) == 1:
            groups = self._append(self._encoded(parts[0], self._schema))
        else:
            with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="rundiff-parquet") as pool:
                files = deque(pool.submit(self._encoded, part, self._schema) for part in parts)
                groups = []
                while files:
                    groups += self._append(files.popleft().result())
        self._groups += groups

    def write_with(self, rows: pa.Table, column: str, there: RowGroup) -> bool:
        """Append rows as one row group, one column of which is copied from a row group with the same rows.

        False, and nothing is written, if the column is not stored there as it would be here.
        """
        self._begin()
        assert self._frame is not None  # noqa: S101 -- begun above
        with there.path.open("rb") as file:
            if self._other is None or self._other[0] != there.path:
                self._other = (there.path, read_footer(file))
            other = self._other[1]
            group = other.groups[there.number]
            wanted, stored = self._frame.leaves(column), other.leaves(column)
            if wanted is None or stored is None or wanted.elements != stored.elements:
                return False
            parts = chunks(group, stored)
            if rows_of(group) != rows.num_rows or any(part.codec not in _KNOWN_CODECS for part in parts):
                return False
            others = rows.drop_columns([column])
            schema = self._schema.remove(self._schema.get_field_index(column))
            [made] = self._append(self._encoded(others, schema))
            self._groups.append(with_column(made, [self._copied(file, part) for part in parts], wanted.first))
        return True

    def _copied(self, file: BinaryIO, part: Chunk) -> Fields:
        if len(self._buffer) < part.size:
            self._buffer = bytearray(part.size)
        with memoryview(self._buffer)[: part.size] as pages:
            file.seek(part.start)
            if file.readinto(pages) != part.size:  # type: ignore[attr-defined]  # files that are read have it
                raise OSError(f"{file.name} is shorter than it says")
            self._stream.write(pages)
        column = part.at(self._end)
        self._end += part.size
        return column

    def end(self) -> None:
        """Write the footer."""
        self._begin()
        assert self._frame is not None  # noqa: S101 -- begun above
        self._stream.write(joined_footer(self._frame, self._groups))

    def _begin(self) -> None:
        if self._frame is not None:
            return
        with memoryview(self._encoded(None, self._schema)).cast("B") as empty:
            body, self._frame = body_and_footer(empty)
            with body:
                self._stream.write(empty[:4])
        self._end = 4

    def _encoded(self, rows: pa.Table | None, schema: pa.Schema) -> pa.Buffer:
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema, **self._options) as writer:
            if rows is not None:
                writer.write_table(rows, row_group_size=rows.num_rows)
        return sink.getvalue()

    def _append(self, file: pa.Buffer) -> list[Fields]:
        self._begin()
        with memoryview(file).cast("B") as whole:
            body, footer = body_and_footer(whole)
            with body:
                self._stream.write(body)
                moved = footer.moved(self._end - 4)
                self._end += len(body)
            return moved
