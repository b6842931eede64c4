"""Parquet files whose row groups are encoded side by side.

Arrow encodes a file on one core. Here each row group becomes a file of its own in memory, several at a time; their
bodies are then written one after the other, under one footer. Readers see a file like any other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa

from rundiff.footers import Fields, Footer, body_and_footer, joined_footer

__all__ = ["GROUP_BYTES", "RowGroups"]

GROUP_BYTES = 32 << 20
"""Of a batch with more values than this, row groups have about as much."""


class RowGroups:
    """A Parquet file that is written into a stream; `options` are those of `pyarrow.parquet.ParquetWriter`.

    The stream is not closed. A file without a row group can't be written.
    """

    def __init__(self, stream: BinaryIO, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self._stream = stream
        self._schema = schema
        self._options = dict(options)
        self._first: Footer | None = None
        self._groups: list[Fields] = []
        self._end = 0

    def write(self, rows: pa.Table, most: int) -> None:
        """Append rows as row groups of at most `most` rows; after an error of Arrow's the file has none of them."""
        count = max(-(-rows.num_rows // most), -(-rows.nbytes // GROUP_BYTES))
        step = max(1, -(-rows.num_rows // max(1, count)))
        parts = [rows.slice(start, step) for start in range(0, rows.num_rows, step)]
        # What was written before an error stays in the stream as bytes that no footer names.
        if len(parts) == 1:
            groups = self._append(self._encoded(parts[0]))
        else:
            with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="rundiff-parquet") as pool:
                files = deque(pool.submit(self._encoded, part) for part in parts)
                groups = []
                while files:
                    groups += self._append(files.popleft().result())
        self._groups += groups

    def end(self) -> None:
        """Write the footer."""
        assert self._first is not None  # noqa: S101 -- only what has rows is written
        self._stream.write(joined_footer(self._first, self._groups))

    def _encoded(self, rows: pa.Table) -> pa.Buffer:
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, self._schema, **self._options) as writer:
            writer.write_table(rows, row_group_size=rows.num_rows)
        return sink.getvalue()

    def _append(self, file: pa.Buffer) -> list[Fields]:
        with memoryview(file).cast("B") as whole:
            body, footer = body_and_footer(whole)
            if self._first is None:
                self._first = footer
                self._stream.write(whole[:4])
                self._end = 4
            moved = footer.moved(self._end - 4)
            self._stream.write(body)
            self._end += len(body)
            body.release()
            return moved
