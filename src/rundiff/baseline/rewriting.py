"""A baseline's live entries written anew as one base, each with something else about it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.merge import entry_shape, merged
from rundiff.baseline.segments import Segment, SegmentInfo, write_segment

__all__ = ["Change", "shape_of", "written_anew"]

Change = Callable[[Any, npt.NDArray[np.int64]], Any]
"""Gives entries, whose positions it is told row by row, other columns; in one order, and of one type."""


def shape_of(baseline: Baseline, change: Change) -> pa.Schema:
    """Give the schema of changed entries."""
    schema = entry_shape(baseline.overlay.schema, baseline.base.schema)
    changed: pa.Schema = change(schema.empty_table(), np.empty(0, dtype=np.int64)).schema
    return changed


def written_anew(baseline: Baseline, folder: Path, change: Change) -> SegmentInfo:
    """Write all live entries, changed, as one segment; their primary key signatures stay as they are."""
    base, overlay = baseline.base, baseline.overlay
    path = folder / f"base-{uuid.uuid4().hex}.arrow"
    schema = shape_of(baseline, change)
    if overlay.rows == 0:
        return write_segment(path, schema, _changed(base, 0, change))
    older, newer = list(_changed(base, 0, change)), list(_changed(overlay, base.rows, change))
    sides = [Segment(side, side[0].schema if side else schema) for side in (newer, older)]
    return write_segment(path, schema, merged(*sides, keep_deleted=False))


def _changed(side: Segment, start: int, change: Change) -> Iterator[pa.RecordBatch]:
    for batch in side.batches:
        yield change(batch, np.arange(start, start + batch.num_rows))
        start += batch.num_rows
