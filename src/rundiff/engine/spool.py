"""The spool: changed rows of a run, kept in memory up to a budget, then in sorted files.

Each row has `primary_key_signature`, `data_signature`, `order` (its place in the reading), `match`
(what the lookup said), `position` (its entry in the baseline, or -1) and `data` (all its fields).
Reading it back goes by ranges of signatures, each sorted and no larger than the budget, so that a
first run of any size is sorted in bounded memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.merge import prefix_ranges
from rundiff.baseline.order import SIGNATURE, argsort, prefixes, words

__all__ = ["BUDGET", "Spool", "spool_batch"]

BUDGET = 64 << 20
"""Bytes of rows kept in memory."""
_WRITERS = 2

_META = [
    ("primary_key_signature", SIGNATURE),
    ("data_signature", SIGNATURE),
    ("order", pa.int64()),
    ("match", pa.uint8()),
    ("position", pa.int64()),
]


def spool_batch(meta: list[pa.Array], records: pa.RecordBatch) -> pa.RecordBatch:
    """Put the five arrays of `_META` and a batch's records together."""
    # Only nulls say nothing of a type, and sources may call them text: another batch knows better.
    n = records.num_rows
    columns = [pa.nulls(n) if column.null_count == n else column for column in records.columns]
    fields = [pa.field(name, column.type) for name, column in zip(records.schema.names, columns, strict=True)]
    data = pa.StructArray.from_arrays(columns, fields=fields)
    schema = pa.schema([*(pa.field(n, t) for n, t in _META), pa.field("data", data.type)])
    return pa.RecordBatch.from_arrays([*meta, data], schema=schema)


class Spool:
    """Rows go in by `add`, in order of reading, inside a `with` block, and come out by `ranges` after it.

    What passes the budget is sorted and written by one of two threads, while the next rows come in; so up to three
    times the budget, and what sorting takes, are in memory.
    """

    def __init__(self, folder: Path, budget: int = BUDGET) -> None:
        self._folder = folder
        self._budget = budget
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._files: list[pa.RecordBatch] = []
        self._threads = ThreadPoolExecutor(_WRITERS, thread_name_prefix="rundiff-spool")
        self._under_way: deque[Future[pa.RecordBatch]] = deque()
        self._whole: Future[pa.RecordBatch] | None = None
        """All rows, sorted, where none had to be written."""
        self._bytes = 0
        self.rows = 0
        self._type: pa.DataType = pa.null()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._files and not self._under_way and self._waiting:
            # All in memory: it is sorted while the run finds out what else it needs.
            self._whole = self._threads.submit(self._sorted, self._waiting)
            self._threads.shutdown(wait=False)
            return
        # Waits even after an error, so that nothing is written any more when the folder is removed.
        self._threads.shutdown()
        if kind is None:
            self._settle(0)

    @property
    def data_type(self) -> pa.StructType:
        """The type of `data` that holds all rows; an empty struct if there are none."""
        return self._type if pa.types.is_struct(self._type) else pa.struct([])

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep rows."""
        if batch.num_rows == 0:
            return
        self.rows += batch.num_rows
        self._type = unify_types(self._type, batch.schema.field("data").type)
        size = batch.nbytes
        self._bytes += size
        self._waiting_bytes += size
        self._waiting.append(batch)
        self._whole = None
        if self._waiting_bytes > self._budget:
            self._settle(_WRITERS - 1)
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            number = len(self._files) + len(self._under_way)
            self._under_way.append(self._threads.submit(self._write, waiting, number))

    @property
    def known_positions(self) -> npt.NDArray[np.int64]:
        """The baseline positions of all rows whose key the baseline has; one may occur repeatedly."""
        parts = [batch.column("position").to_numpy() for batch in (*self._files, *self._waiting)]
        positions = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return positions[positions >= 0]

    def _settle(self, most: int) -> None:
        """Wait until no more than `most` of what was handed to the threads is left to write."""
        while len(self._under_way) > most:
            self._files.append(self._under_way.popleft().result())

    def _write(self, waiting: list[pa.RecordBatch], number: int) -> pa.RecordBatch:
        """Write rows into a sorted file of their own; give them as they are mapped from there."""
        batch = self._sorted(waiting)
        path = self._folder / f"spool-{number:05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)

    def _sorted(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        """Sort rows of several batches, each in order of reading, by signature, then order."""
        kind: pa.DataType = pa.null()
        for batch in batches:
            kind = unify_types(kind, batch.schema.field("data").type)
        schema = pa.schema([*(pa.field(n, t) for n, t in _META), pa.field("data", kind)])
        alike = [
            pa.RecordBatch.from_arrays([*b.columns[:-1], conform(b.column("data"), kind)], schema=schema)
            for b in batches
        ]
        whole = pa.Table.from_batches(alike, schema).combine_chunks().to_batches()[0]
        return whole.take(pa.array(argsort(words(whole.column("primary_key_signature")))))

    def ranges(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows by ascending signature, then order, in ranges that don't split a key."""
        if self._whole is not None:
            yield self._whole.result()
            return
        if self._waiting and self._files:
            self._files.append(self._write(self._waiting, len(self._files)))
            self._waiting = []
        if not self._files:
            if self._waiting:
                yield self._sorted(self._waiting)
            return
        count = -(-self._bytes // self._budget)
        keys = [prefixes(words(b.column("primary_key_signature"))) for b in self._files]
        for low, high in prefix_ranges(count, 1):
            parts = []
            for batch, first in zip(self._files, keys, strict=True):
                start = int(np.searchsorted(first, np.uint64(low)))
                stop = len(first) if high >= 1 << 64 else int(np.searchsorted(first, np.uint64(high)))
                if start < stop:
                    parts.append(batch.slice(start, stop - start))
            if parts:
                yield self._sorted(parts)
