"""Arrow values as Python values, for callers that take write records one by one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

__all__ = ["values"]


def values(array: pa.Array) -> list[Any]:
    """Give a column as Python values; `rundiff.cbor` becomes the values that were signed."""
    from rundiff.signing.mixed import MixedType, decode

    if isinstance(array.type, MixedType):
        return decode(array)
    if pa.types.is_struct(array.type) and any(isinstance(f.type, MixedType) for f in array.type):
        fields = {f.name: values(array.field(i)) for i, f in enumerate(array.type)}
        valid = array.is_valid().to_pylist()
        return [
            {name: column[row] for name, column in fields.items()} if valid[row] else None
            for row in range(len(array))
        ]
    return array.to_pylist()  # type: ignore[no-any-return]
