"""The entries that rows of a table become: sorted on disk, so that a table of any size is adopted in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.columns import conform
from rundiff.baseline.order import first_of_group, words
from rundiff.baseline.segments import FLAG_UNCERTAIN
from rundiff.engine.fieldsignatures import without_doubtful
from rundiff.engine.spool import BUDGET, Spool, spool_batch

__all__ = ["Adopted", "flagged"]

_SPOOLED = ("primary_key_signature", "data_signature")
"""Columns of an entry that a spool has by itself; the others travel with it as a record."""


class Adopted:
    """Entries go in by `add`, in any order, inside a `with` block, and come out by `entries` after it."""

    def __init__(self, folder: Path, budget: int = BUDGET) -> None:
        self._folder = folder
        self._spool = Spool(folder, budget)
        self._schema: pa.Schema | None = None
        self.rows = 0
        """Of the table."""
        self.unnamed = 0
        """Rows without a key that the source could have, as a run would spell it."""
        self.odd = 0
        """Entries that can't be compared; the next run that reads their key writes them. Known after `entries`."""
        self.fields: dict[str, None] = {}
        """The fields with values that can't be read as their type."""
        self.known: dict[str, None] = {}
        """The fields that the table has."""
        self.repeated = 0
        """Keys that have several rows. Known after `entries`."""

    def __enter__(self) -> Self:
        self._spool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.__exit__(kind, error, trace)

    def add(self, made: pa.RecordBatch) -> None:
        """Keep the entries of some rows."""
        self._schema = made.schema
        rows = made.num_rows
        first = self._spool.rows
        meta = [
            *(made.column(name) for name in _SPOOLED),
            pa.array(np.arange(first, first + rows, dtype=np.int64)),
            pa.array(np.zeros(rows, dtype=np.uint8)),
            pa.array(np.full(rows, -1, dtype=np.int64)),
        ]
        self._spool.add(spool_batch(meta, made.drop_columns(list(_SPOOLED))))

    def entries(self) -> Iterator[pa.RecordBatch]:
        """Yield one entry a key, sorted; of several rows of a key none is taken for the record."""
        schema = self._schema
        if schema is None:
            return
        for rows in self._spool.ranges():
            data = rows.column("data")
            columns = {name: rows.column(name) for name in _SPOOLED}
            columns |= {f.name: conform(data.field(f.name), schema.field(f.name).type) for f in data.type}
            whole = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
            first = first_of_group(words(whole.column("primary_key_signature")))
            several = np.zeros(len(first), dtype=np.bool_)
            several[:-1] |= ~first[1:]
            kept = whole.filter(pa.array(first))
            self.repeated += int(np.count_nonzero(several[first]))
            doubtful = (kept.column("flags").to_numpy() != 0) | several[first]
            self.odd += int(np.count_nonzero(doubtful))
            yield without_doubtful(flagged(kept, doubtful), doubtful)

    def clear(self) -> None:
        """Remove the files that the sorting left."""
        for path in self._folder.glob("spool-*.arrow"):
            path.unlink()


def flagged(batch: pa.RecordBatch, uncertain: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """Flag some entries as uncertain."""
    at = batch.schema.get_field_index("flags")
    flags = np.where(uncertain, np.uint8(FLAG_UNCERTAIN), batch.column(at).to_numpy())
    return batch.set_column(at, batch.schema.field(at), pa.array(flags.astype(np.uint8)))
