"""Batches put together from typed columns, without the records that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from rundiff.sources.contract import ReadBatch, Unreadable
from rundiff.sources.spelling import Mask

__all__ = ["columns_of", "fitting_batch", "record_batch"]


def columns_of(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Turn records into columns; a field that a record lacks is None there."""
    # Other mappings may answer for fields that they lack (defaultdict).
    if len(names) > 1 and set(map(type, records)) == {dict}:
        try:
            # Where all records have all fields, this stays inside of the interpreter's own loops.
            return dict(zip(names, zip(*map(itemgetter(*names), records), strict=True), strict=True))
        except KeyError:
            pass
    return {name: [record.get(name) for record in records] for name in names}


def record_batch(columns: Mapping[str, pa.Array], rows: int) -> pa.RecordBatch:
    """Join columns into a batch that knows its number of rows even if there is no column."""
    if columns:
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def fitting_batch(
    records: pa.RecordBatch,
    misfits: Mapping[str, Mask],
    unreadable: Sequence[Unreadable],
    explain: Callable[[int, str], Unreadable],
) -> ReadBatch:
    """Drop the records that do not fit; `explain` is asked once for each, with its first such field."""
    if not misfits:
        return ReadBatch(records, unreadable)
    reported = list(unreadable)
    bad = np.zeros(records.num_rows, np.bool_)
    for name, misfit in misfits.items():
        reported += [explain(row, name) for row in np.flatnonzero(misfit & ~bad).tolist()]
        bad |= misfit
    return ReadBatch(records.filter(pa.array(~bad)), reported)
