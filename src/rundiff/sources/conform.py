"""Columns of typed sources brought to their pinned types, by families.

| pinned | fits |
|---|---|
| integer, unsigned | integers of any width, floats and decimals that are whole, within the range |
| double | floats of any width, integers that a double keeps, decimals that are its shortest spelling |
| decimal | decimals and integers that need no more digits, floats by their shortest spelling |
| text, binary, boolean, date, uuid, json | the same, in any width or view |
| time, timestamp, duration | the same in any unit that loses nothing; a naive timestamp counts as UTC |
| list, struct, map | the same with parts that Arrow can cast without loss |
| mixed | everything |
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kind

from rundiff.sources.mixedvalues import mixed_column
from rundiff.sources.numbers import fit_number
from rundiff.sources.pins import arrow_type_of
from rundiff.sources.spelling import Mask, cast_leniently
from rundiff.sources.texttypes import fit_text

__all__ = ["conform"]

_FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    kind.is_string,
    kind.is_binary,
    kind.is_boolean,
    kind.is_date,
    kind.is_time,
    kind.is_timestamp,
    kind.is_duration,
    kind.is_list,
    kind.is_struct,
    kind.is_map,
)


def conform(  # noqa: PLR0911 - one return per family
    array: pa.Array, pin: str, *, explicit: bool = False
) -> tuple[pa.Array, Mask | None]:
    """Bring a column of plain types to its pinned type.

    Returns the array, null where a value does not fit, and the mask of those rows, or None when all
    fit. With `explicit` (a type that a person asked for) text is read as the type, and other values
    are written as text.
    """
    target = arrow_type_of(pin)
    if array.type == target:
        return array, None
    if kind.is_null(array.type):
        return pa.nulls(len(array), target), None
    if pin == "mixed":
        return mixed_column(array.to_pylist())
    if explicit and kind.is_string(array.type):
        return fit_text(array, pin)
    if explicit and kind.is_string(target) and not kind.is_nested(array.type):
        return array.cast(target), None
    if _is_number(array.type) and _is_number(target):
        return _number(array, target)
    if _holds_extension(array.type) or _holds_extension(target):
        return _none_fits(array, target)
    if any(family(array.type) and family(target) for family in _FAMILIES):
        cast, bad = cast_leniently(array, target)
        return cast, _mask(len(array), bad)
    return _none_fits(array, target)


def _number(array: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    try:
        # Widths, whole floats and decimals, integers within 2^53: Arrow's checked cast is exact.
        if not (kind.is_floating(array.type) and kind.is_decimal(target)) and not (
            kind.is_decimal(array.type) and kind.is_floating(target)
        ):
            return array.cast(target), None
    except pa.ArrowInvalid:
        if kind.is_integer(array.type) and kind.is_floating(target):
            return _integers_as_doubles(array)
    # What is left is read by its spelling, like text: decimal and double meet only there.
    present = pc.is_valid(array)
    rows = np.flatnonzero(present.to_numpy(zero_copy_only=False))
    fitted, misfit = fit_number(array.drop_null().cast(pa.string()), target)
    places = np.full(len(array), -1, np.int64)
    places[rows] = np.arange(len(rows))
    return fitted.take(pa.array(places, mask=places < 0)), _mask(len(array), rows[misfit].tolist())


def _integers_as_doubles(array: pa.Array) -> tuple[pa.Array, Mask | None]:
    doubles = array.cast(pa.float64(), safe=False)
    inside = pc.less(doubles, 2.0**64 if kind.is_unsigned_integer(array.type) else 2.0**63)
    back = pc.if_else(inside, doubles, 0.0).cast(array.type, safe=False)
    exact = pc.fill_null(pc.and_(inside, pc.equal(back, array)), True)
    misfit: Mask = ~exact.to_numpy(zero_copy_only=False)
    return pc.if_else(exact, doubles, pa.scalar(None, pa.float64())), misfit if misfit.any() else None


def _none_fits(array: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    rows = np.flatnonzero(pc.is_valid(array).to_numpy(zero_copy_only=False))
    return pa.nulls(len(array), target), _mask(len(array), rows.tolist())


def _mask(length: int, rows: list[int]) -> Mask | None:
    if not rows:
        return None
    mask = np.zeros(length, np.bool_)
    mask[rows] = True
    return mask


def _is_number(data_type: pa.DataType) -> bool:
    return bool(kind.is_integer(data_type) or kind.is_floating(data_type) or kind.is_decimal(data_type))


def _holds_extension(data_type: pa.DataType) -> bool:
    if isinstance(data_type, pa.BaseExtensionType):
        return True
    return any(_holds_extension(data_type.field(index).type) for index in range(data_type.num_fields))
