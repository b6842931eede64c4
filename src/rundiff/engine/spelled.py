"""Values as a destination spells them, read as the types that their fields are pinned to.

Not every type can be read from every spelling; what can't is said, and never taken for null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.sources.pins import arrow_type_of
from rundiff.sources.texttypes import fit_text

__all__ = ["ReadBack", "read_back", "readable_type"]

Mask = npt.NDArray[np.bool_]

_ZONE = r"(?:Z|[+-]00(?::?00)?)$"
_TRUE, _FALSE = pa.array(["true", "1", "t"]), pa.array(["false", "0", "f"])
_LEAVES = (pa.types.is_int64, pa.types.is_float64, pa.types.is_string, pa.types.is_boolean)


class ReadBack(msgspec.Struct, frozen=True):
    """Rows with their types, and which of them hold a value that could not be read as its field's."""

    records: pa.RecordBatch
    odd: Mask
    fields: Mapping[str, Mask]
    """The same by field, where there are any."""


def readable_type(data_type: pa.DataType) -> bool:
    """Say whether values of a type can be read from their spelling."""
    if isinstance(data_type, pa.BaseExtensionType):
        return data_type.extension_name in ("arrow.uuid", "arrow.json")
    if pa.types.is_nested(data_type):
        return _plain_nested(data_type)
    return not (pa.types.is_duration(data_type) or pa.types.is_interval(data_type))


def read_back(texts: pa.RecordBatch, pins: Mapping[str, str]) -> ReadBack:
    """Read columns of text as their fields' pinned types; fields that are not pinned never had a value."""
    odd = np.zeros(texts.num_rows, dtype=np.bool_)
    fields: dict[str, Mask] = {}
    columns = []
    for name, column in zip(texts.schema.names, texts.columns, strict=True):
        array, bad = _read(column, arrow_type_of(pins[name]) if name in pins else pa.null())
        columns.append(array)
        if bad is not None and bad.any():
            fields[name] = bad
            odd |= bad
    return ReadBack(pa.RecordBatch.from_arrays(columns, texts.schema.names), odd, fields)


def _read(texts: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), target), None
    if pa.types.is_null(target) or not readable_type(target):
        return pa.nulls(len(texts), target), _valid(texts)
    read = next((read for test, read in _READERS if test(target)), _fitted)
    return read(texts, target)


def _texts(texts: pa.Array, _: pa.DataType) -> tuple[pa.Array, None]:
    return texts, None


def _valid(texts: pa.Array) -> Mask:
    mask: Mask = texts.is_valid().to_numpy(zero_copy_only=False)
    return mask


def _fitted(texts: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    from rundiff.sources.pins import pin_of

    pin = pin_of(target)
    assert pin is not None  # noqa: S101 -- the types come from pins
    array, bad = fit_text(texts, pin)
    # For a text source an empty text of another type is null; here it is a value that nobody wrote.
    empty = pc.fill_null(pc.equal(texts, ""), False).to_numpy(zero_copy_only=False)
    if empty.any():
        bad = empty if bad is None else bad | empty
    return array, bad


def _number(texts: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    """Read numbers; as Arrow does at once where each text is what it would spell itself."""
    try:
        array = texts.cast(target)
    except pa.ArrowInvalid:
        return _fitted(texts, target)
    if pc.all(pc.equal(array.cast(pa.string()), texts)).as_py() is not False:
        return array, None
    return _fitted(texts, target)


def _boolean(texts: pa.Array, _: pa.DataType) -> tuple[pa.Array, Mask | None]:
    true, known = (
        pc.is_in(texts, value_set=_TRUE),
        pc.is_in(texts, value_set=pa.concat_arrays([_TRUE, _FALSE])),
    )
    bad = pc.and_(texts.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
    return pc.if_else(known, true, pa.scalar(None, pa.bool_())), bad


def _binary(texts: pa.Array, _: pa.DataType) -> tuple[pa.Array, Mask | None]:
    # One by one: Arrow reads no hexadecimal digits.
    values = [None if text is None else _unhexed(text) for text in texts.to_pylist()]
    array = pa.array(values, pa.binary())
    return array, _valid(texts) & ~_valid(array)


def _unhexed(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text[2:]) if text.startswith("\\x") else None
    except ValueError:
        return None


def _timestamp(texts: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    # Naive times count as UTC, and columns keep no other zone.
    naive = pa.timestamp(target.unit)
    array, bad = _fitted(pc.replace_substring_regex(texts, _ZONE, ""), naive)
    return array.cast(target), bad


def _plain_nested(data_type: pa.DataType) -> bool:
    if pa.types.is_list(data_type):
        return _plain_leaf(data_type.value_type)
    if pa.types.is_struct(data_type):
        return all(_plain_leaf(member.type) for member in data_type)
    return False


def _plain_leaf(data_type: pa.DataType) -> bool:
    return any(test(data_type) for test in _LEAVES) or _plain_nested(data_type)


def _nested(texts: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask | None]:
    """Read JSON as lists and structs of plain values, one by one; other members than the type's are odd."""
    values = [None if text is None else _parsed(text, target) for text in texts.to_pylist()]
    bad = np.fromiter((value is _ODD for value in values), np.bool_, len(values))
    array, unfit = _converted([None if value is _ODD else value for value in values], target)
    bad[unfit] = True
    return array, bad


_ODD = object()


def _converted(values: list[Any], target: pa.DataType) -> tuple[pa.Array, list[int]]:
    try:
        return pa.array(values, target), []
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        if len(values) == 1:
            return pa.nulls(1, target), [0]
    middle = len(values) // 2
    left, bad_left = _converted(values[:middle], target)
    right, bad_right = _converted(values[middle:], target)
    return pa.concat_arrays([left, right]), [*bad_left, *(middle + row for row in bad_right)]


def _parsed(text: str, target: pa.DataType) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return _ODD
    # JSON's null is a value here, and no list or struct.
    return value if value is not None and _fits(value, target) else _ODD


def _fits(value: Any, target: pa.DataType) -> bool:
    if value is None:
        return True
    if pa.types.is_list(target):
        return isinstance(value, list) and all(_fits(item, target.value_type) for item in value)
    if pa.types.is_struct(target):
        if not isinstance(value, dict):
            return False
        members = {member.name: member.type for member in target}
        return all(name in members and _fits(item, members[name]) for name, item in value.items())
    wanted: dict[bool, Any] = {True: str, False: bool}
    if pa.types.is_string(target) or pa.types.is_boolean(target):
        return isinstance(value, wanted[bool(pa.types.is_string(target))])
    return isinstance(value, int if pa.types.is_int64(target) else int | float) and not isinstance(
        value, bool
    )


_Reader = Callable[[pa.Array, pa.DataType], tuple[pa.Array, Mask | None]]
_READERS: tuple[tuple[Callable[[pa.DataType], bool], _Reader], ...] = (
    (pa.types.is_string, _texts),
    (pa.types.is_binary, _binary),
    (pa.types.is_boolean, _boolean),
    (pa.types.is_nested, _nested),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_integer, _number),
    (pa.types.is_float64, _number),
)
"""How each type is read; all others as a source of text reads them."""
