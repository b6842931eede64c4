"""Field signatures of entries: which fields of a record changed, told without its former values.

The column `field_signatures` is a struct with one uint64 a compared field, null where they are not known. The number is
the first 8 bytes, big-endian, of the signature over the primary key's fields and the field (design section 3), hence
bound to the record; 0 where the field is null or missing, and 1 in the place of a 0 that comes by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "FIELD_SIGNATURES",
    "Numbers",
    "as_field_signatures",
    "numbers_of",
    "signatures_type",
    "with_names",
]

FIELD_SIGNATURES = "field_signatures"
"""The name of the column."""

Numbers = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


def signatures_type(names: Sequence[str]) -> pa.StructType:
    """Give the type of the signatures of these fields."""
    return pa.struct([pa.field(name, pa.uint64(), nullable=False) for name in names])


def as_field_signatures(numbers: Mapping[str, Numbers], known: Flags) -> pa.StructArray:
    """Build the column from the numbers by field; null where they are not `known`."""
    kind = signatures_type(list(numbers))
    if not numbers:
        # Without a field, Arrow can't tell how many rows there are.
        return pa.array([{} if one else None for one in known.tolist()], kind)
    children = [pa.array(np.ascontiguousarray(column)) for column in numbers.values()]
    return pa.StructArray.from_arrays(
        children, fields=list(kind), mask=None if known.all() else pa.array(~known)
    )


def numbers_of(column: pa.StructArray, name: str) -> Numbers:
    """Give the numbers of one field: 0 where the column lacks it, as it was null then."""
    at = column.type.get_field_index(name)
    if at < 0:
        return np.zeros(len(column), dtype=np.uint64)
    return column.field(at).to_numpy()  # type: ignore[no-any-return]


def with_names(column: pa.StructArray | None, names: Sequence[str], rows: int) -> pa.StructArray:
    """Bring the column to these fields; of entries without the column nothing is known."""
    if column is None:
        nothing = np.zeros(rows, dtype=np.uint64)
        return as_field_signatures(dict.fromkeys(names, nothing), np.zeros(rows, dtype=np.bool_))
    if column.type.equals(signatures_type(names)):
        return column
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return as_field_signatures({name: numbers_of(column, name) for name in names}, known)
