"""Values of the write log under the types that their fields have by now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rundiff.errors import ConfigurationError
from rundiff.signing.mixed import MixedType, decode, encode
from rundiff.sources.conform import conform
from rundiff.sources.pins import arrow_type_of

__all__ = ["changed_pins", "retyped", "retyped_struct"]


_NEVER = (ConfigurationError, pa.ArrowInvalid, pa.ArrowNotImplementedError)
"""What is raised where no value of a type can be one of another."""


def changed_pins(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Give the fields that had another type, with that of now; a mixed one takes values as they are."""
    return {
        name: pin
        for name, pin in now.items()
        if before.get(name, pin) != pin and "mixed" not in (pin, before[name])
    }


def retyped(records: pa.RecordBatch, pins: Mapping[str, str]) -> pa.RecordBatch:
    """Bring fields to their types of now, as if the source had spelled their values so.

    Values that don't fit stay what they are, and differ from all that do; so do nested ones, whose parts are signed
    by themselves.
    """
    for name, pin in pins.items():
        at = records.schema.get_field_index(name)
        if at >= 0:
            records = records.set_column(at, name, _retyped(records.column(at), pin))
    return records


def retyped_struct(data: pa.StructArray, pins: Mapping[str, str]) -> pa.StructArray:
    """Do the same for the members of a struct; its nulls stay."""
    names = [field.name for field in data.type]
    if all(
        name not in pins or _alike(field.type, pins[name])
        for name, field in zip(names, data.type, strict=True)
    ):
        return data
    records = retyped(pa.RecordBatch.from_arrays(data.flatten(), names), pins)
    return pa.StructArray.from_arrays(records.columns, names, mask=data.is_null())


def _alike(kind: pa.DataType, pin: str) -> bool:
    """Say whether values of a type are what they are under a pin."""
    target = arrow_type_of(pin)
    return (
        kind.equals(target)
        or isinstance(target, MixedType)
        or pa.types.is_null(kind)
        or pa.types.is_nested(kind)
        or pa.types.is_nested(target)
    )


def _retyped(array: pa.Array, pin: str) -> pa.Array:
    if _alike(array.type, pin):
        return array
    if isinstance(array.type, MixedType):
        return _each(decode(array), pin)
    if isinstance(array.type, pa.BaseExtensionType):
        # UUIDs and JSON are signed as their texts.
        return array
    try:
        fitted, misfit = conform(array, pin, explicit=True)
    except _NEVER:
        return array
    if misfit is None:
        return fitted
    values = zip(fitted.to_pylist(), array.to_pylist(), misfit.tolist(), strict=True)
    return encode(former if bad else value for value, former, bad in values)


def _each(values: list[Any], pin: str) -> pa.Array:
    """Bring values of mixed types to one, kind by kind."""
    kinds: dict[type, list[int]] = {}
    for row, value in enumerate(values):
        if value is not None:
            kinds.setdefault(type(value), []).append(row)
    fits = True
    for rows in kinds.values():
        try:
            array = pa.array([values[row] for row in rows])
            fitted, misfit = conform(array, pin, explicit=True)
        except (*_NEVER, pa.ArrowTypeError, OverflowError):
            # Such as points in time that Arrow does not take from Python.
            fits = False
            continue
        for place, row in enumerate(rows):
            if misfit is None or not misfit[place]:
                values[row] = fitted[place].as_py()
        fits = fits and misfit is None
    return pa.array(values, arrow_type_of(pin)) if fits else encode(values)
