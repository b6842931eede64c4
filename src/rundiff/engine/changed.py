"""Which fields of updated records changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rundiff.engine.fieldsignatures import changed_by_signatures
from rundiff.engine.previous import changed_fields
from rundiff.engine.retyping import retyped_struct

if TYPE_CHECKING:
    from rundiff.engine.comparing import Comparing

__all__ = ["which_changed"]


def which_changed(work: Comparing, rows: pa.RecordBatch, data: pa.StructArray) -> pa.Array:
    """Name the fields that changed in records: by their signatures, else by the write log; null where neither knows."""
    marks, positions = work.field_signatures, rows.column("position").to_numpy()
    if marks is None or not marks.valid:
        return _changed_by_log(work, rows, data)
    before = marks.at(positions)
    now = marks.signer.sign(pa.RecordBatch.from_struct_array(data), work.signed_fields)
    told = changed_by_signatures(before, now)
    if told.null_count == 0:
        return told
    others = told.is_null()
    logged = _changed_by_log(work, rows.filter(others), data.filter(others))
    # Arrow can't put lists in the place of others, but take them from two arrays in a row.
    at = np.arange(len(told))
    at[others.to_numpy(zero_copy_only=False)] = len(told) + np.arange(len(logged))
    return pa.concat_arrays([told, logged]).take(pa.array(at))


def _changed_by_log(work: Comparing, rows: pa.RecordBatch, data: pa.StructArray) -> pa.Array:
    positions = rows.column("position").to_numpy()
    written = work.baseline.column_at("written_run", positions)
    kind = work.previous.data_type(written)
    if pa.types.is_null(kind):
        return pa.nulls(rows.num_rows, pa.list_(pa.string()))
    signatures = rows.column("primary_key_signature")
    if work.renewed is not None and work.renewed.rekeyed:
        signatures = work.baseline.key_signatures(positions)
    before = retyped_struct(work.previous.fetch(signatures, written, kind), work.pins)
    return changed_fields(before, data, *work.compared)
