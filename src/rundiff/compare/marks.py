"""`deleted_when`: which records a source marks as deleted itself, and which record it must have.

A condition is SQL: `is null`, `is not null`, `=`, `<>`, `!=`, a field of truth values by itself, and
these under `and`, `or` and `not`; `engine.conditions` reads it. Null is neither equal nor unequal to
anything, as in SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.errors import ConfigurationError

__all__ = ["Condition", "holds", "matches_all", "named_fields"]

Flags = npt.NDArray[np.bool_]
_MOST_BITS = 63


class Condition(msgspec.Struct, frozen=True):
    """A part of a condition: `=`, `<>`, `is null`, `is not null` and `true` of a field; `and`, `or`, `not`."""

    kind: str
    field: str = ""
    value: bool | int | Decimal | str | None = None
    parts: tuple[Condition, ...] = ()


def named_fields(condition: Condition) -> Iterator[str]:
    """Give the fields that a condition names."""
    if condition.field:
        yield condition.field
    for part in condition.parts:
        yield from named_fields(part)


def holds(condition: Condition, records: pa.RecordBatch) -> Flags:
    """Mark the records for which a condition is true; a field that a batch lacks is null."""
    truth = pc.fill_null(_truth(condition, records), False)
    marked: Flags = truth.to_numpy(zero_copy_only=False)
    return marked


def matches_all(values: Mapping[str, Any], records: pa.RecordBatch, option: str) -> bool:
    """Say whether one of the records has all these values."""
    every = [_equal(_column(records, name), value, name, option) for name, value in values.items()]
    truth = every[0]
    for more in every[1:]:
        truth = pc.and_kleene(truth, more)
    return bool(pc.any(truth).as_py())


def _truth(condition: Condition, records: pa.RecordBatch) -> pa.BooleanArray:
    kind = condition.kind
    if kind == "not":
        return pc.invert(_truth(condition.parts[0], records))
    if kind in ("and", "or"):
        join = pc.and_kleene if kind == "and" else pc.or_kleene
        truth = _truth(condition.parts[0], records)
        for part in condition.parts[1:]:
            truth = join(truth, _truth(part, records))
        return truth
    column = _column(records, condition.field)
    if kind == "is null":
        return column.is_null()
    if kind == "is not null":
        return column.is_valid()
    value = True if kind == "true" else condition.value
    equal = _equal(column, value, condition.field, "deleted_when")
    return pc.invert(equal) if kind == "<>" else equal


def _column(records: pa.RecordBatch, name: str) -> pa.Array:
    at = records.schema.get_field_index(name)
    return records.column(at) if at >= 0 else pa.nulls(records.num_rows)


def _equal(column: pa.Array, value: Any, name: str, option: str) -> pa.BooleanArray:
    """Compare a column with a value, which is brought to the column's type."""
    from rundiff.signing.mixed import MixedType, encode

    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.bool_())
    if isinstance(column.type, MixedType):
        # Two values have one encoding exactly where they sign alike.
        return pc.equal(column.storage, encode([value]).storage[0])
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage if not isinstance(column.type, pa.UuidType) else column.cast(pa.string())
    try:
        return pc.equal(column, _scalar(value, column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ConfigurationError(
            f"{option} compares the field {name}, which holds {column.type} values, with {value!r}; "
            "compare it with a value of that type"
        ) from error


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return pa.scalar(text, kind)
    if isinstance(value, str) or pa.types.is_boolean(kind):
        return pa.scalar(value).cast(kind)
    # Numbers are compared as such: 1.5 is no integer, and equal to none.
    return pa.scalar(Decimal(value) if isinstance(value, int) and value.bit_length() > _MOST_BITS else value)
