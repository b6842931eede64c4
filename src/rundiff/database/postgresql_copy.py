"""Write records as lines of PostgreSQL's COPY, built column by column.

The text format of COPY (PostgreSQL documentation, COPY, "Text Format"): values between tabs, `\\N` for
null, a backslash before whatever would be taken for one of these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.database.server import clean

__all__ = ["COLUMNS", "copy_lines"]

COLUMNS = (
    "sync_id",
    "run_id",
    "destination_action",
    "sequence",
    "primary_key_signature",
    "data_signature",
    "primary_key",
    "data",
    "changed_fields",
)
"""In this order; the others have their defaults: pending, no attempts, now."""

_TEXT = pa.large_string()
_NULL = "\\N"
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint8).reshape(256, 2)


def copy_lines(
    batch: pa.RecordBatch,
    head: tuple[str, int, str],
    sequence: int,
    json_text: Callable[[pa.Array], pa.Array],
) -> bytes:
    """Give a batch of the write log as lines of COPY; `head` is its sync_id, run and action.

    `sequence` is that of the first record.
    """
    rows = batch.num_rows
    numbers = pc.cast(pa.array(np.arange(sequence, sequence + rows, dtype=np.int64)), _TEXT)
    columns = [
        pa.scalar("\t".join(map(str, head)), _TEXT),
        numbers,
        _bytea(batch.column("primary_key_signature")),
        _bytea(batch.column("data_signature")),
        _json(batch.column("primary_key"), json_text),
        _json(batch.column("data"), json_text),
        _names(batch.column("changed_fields")),
    ]
    lines = pc.binary_join_element_wise(*columns, pa.scalar("\t", _TEXT))
    # The join ends each line, too: one buffer with everything in its order.
    ended = pc.binary_join_element_wise(lines, pa.scalar("", _TEXT), pa.scalar("\n", _TEXT))
    _, offsets, data = ended.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)
    return data[int(bounds[ended.offset]) : int(bounds[ended.offset + rows])].to_pybytes()  # type: ignore[no-any-return]


def _bytea(array: pa.Array) -> pa.Array:
    width = array.type.byte_width
    start = array.offset * width
    raw = np.frombuffer(array.buffers()[1], dtype=np.uint8)[start : start + len(array) * width]
    text = np.empty((len(array), 3 + 2 * width), dtype=np.uint8)
    text[:, :3] = np.frombuffer(b"\\\\x", dtype=np.uint8)
    text[:, 3:] = _HEX[raw].reshape(len(array), 2 * width)
    offsets = np.arange(len(array) + 1, dtype=np.int64) * (3 + 2 * width)
    return pa.LargeStringArray.from_buffers(len(array), pa.py_buffer(offsets), pa.py_buffer(text))


def _json(array: pa.Array, json_text: Callable[[pa.Array], pa.Array]) -> pa.Array:
    # JSON has its control characters escaped: only the backslash means something to COPY.
    text = pc.replace_substring(json_text(array).cast(_TEXT), "\\", "\\\\")
    return text if array.null_count == 0 else pc.if_else(array.is_valid(), text, pa.scalar(_NULL, _TEXT))


def _names(array: pa.Array) -> pa.Array:
    """Spell lists of field names as `text[]` literals."""
    values = array.flatten().dictionary_encode()
    spelled = pa.array([_quoted(name) for name in values.dictionary.to_pylist()], pa.string())
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), spelled.take(values.indices))
    joined = pc.binary_join(lists, ",").cast(_TEXT)
    joined = pc.binary_join_element_wise(
        pa.scalar("{", _TEXT), joined, pa.scalar("}", _TEXT), pa.scalar("", _TEXT)
    )
    return pc.if_else(array.is_valid(), joined, pa.scalar(_NULL, _TEXT))


def _quoted(name: str) -> str:
    """Quote an element for an array literal, then escape that for COPY."""
    literal = '"' + clean(name).replace("\\", "\\\\").replace('"', '\\"') + '"'
    for character, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        literal = literal.replace(character, escape)
    return literal
