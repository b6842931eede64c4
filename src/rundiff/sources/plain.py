"""Arrow types brought to plain ones, with their values kept.

Plain are the types that `pins.arrow_type_of` names: no dictionaries, run-end encodings, views,
large or fixed-size variants, and one width each for integers and floats.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as kind

from rundiff.errors import ConfigurationError

__all__ = ["plain_type", "to_plain"]


def plain_type(data_type: pa.DataType, field: str) -> pa.DataType:
    """Give the plain type that keeps every value of `data_type`.

    Units of time are kept, zones become UTC (the instant is the value). Types that Parquet can't
    store (month-day-nano intervals) become `rundiff.cbor`. Raises `ConfigurationError`, naming the
    field, for unions and unknown extension types, which have no signature (design section 3).
    """
    if _needs_mixed(data_type):
        from rundiff.signing.mixed import MixedType

        _plain(data_type, field)
        return MixedType()
    return _plain(data_type, field)


def to_plain(array: pa.Array, data_type: pa.DataType) -> pa.Array:  # noqa: PLR0911 - one return per encoding
    """Bring an array to the plain type that `plain_type` gave for its own type."""
    if array.type == data_type:
        return array
    if isinstance(data_type, pa.BaseExtensionType) and data_type.extension_name == "rundiff.cbor":
        from rundiff.signing.mixed import encode

        # Only intervals come here, one by one: no cast knows them.
        return encode(array.to_pylist())
    if isinstance(array.type, pa.BaseExtensionType):
        return _from_extension(array, data_type)
    if kind.is_run_end_encoded(array.type):
        import pyarrow.compute as pc

        return to_plain(pc.run_end_decode(array), data_type)
    if _is_list_view(array.type):
        return _list_of_view(array, data_type)
    if _is_uncastable(array.type):
        # Rare enough to go by values.
        return pa.array(array.to_pylist(), data_type)
    try:
        return array.cast(data_type)
    except pa.ArrowNotImplementedError:
        # polars hands on dictionaries of views, which Arrow can't unpack.
        if kind.is_dictionary(array.type):
            values = to_plain(array.dictionary, data_type)
            return values.take(array.indices.cast(pa.int64()))
        return pa.array(array.to_pylist(), data_type)


def _plain(data_type: pa.DataType, field: str) -> pa.DataType:
    if isinstance(data_type, pa.BaseExtensionType):
        return _plain_extension(data_type, field)
    if kind.is_union(data_type):
        raise ConfigurationError(
            f"The field `{field}` has the Arrow type {data_type}: unions can't be compared; "
            "convert the field to one type first."
        )
    if kind.is_dictionary(data_type) or kind.is_run_end_encoded(data_type):
        return _plain(data_type.value_type, field)
    if kind.is_nested(data_type):
        return _plain_nested(data_type, field)
    if kind.is_unsigned_integer(data_type):
        return pa.uint64() if data_type.bit_width == 64 else pa.int64()
    if kind.is_integer(data_type):
        return pa.int64()
    if kind.is_floating(data_type):
        return pa.float64()
    return _plain_other(data_type)


def _plain_other(data_type: pa.DataType) -> pa.DataType:
    if kind.is_decimal(data_type):
        narrow = data_type.precision <= 38 and data_type.scale >= 0
        if data_type.scale < 0:
            return pa.decimal256(min(76, data_type.precision - data_type.scale), 0)
        return (pa.decimal128 if narrow else pa.decimal256)(data_type.precision, data_type.scale)
    if kind.is_large_string(data_type) or kind.is_string_view(data_type):
        return pa.string()
    if (
        kind.is_large_binary(data_type)
        or kind.is_binary_view(data_type)
        or kind.is_fixed_size_binary(data_type)
    ):
        return pa.binary()
    if kind.is_date(data_type):
        return pa.date32()
    if kind.is_timestamp(data_type) and data_type.tz:
        return pa.timestamp(data_type.unit, "UTC")
    return data_type


def _plain_nested(data_type: pa.DataType, field: str) -> pa.DataType:
    if kind.is_struct(data_type):
        return pa.struct([pa.field(member.name, _plain(member.type, field)) for member in data_type])
    if kind.is_map(data_type):
        return pa.map_(_plain(data_type.key_type, field), _plain(data_type.item_type, field))
    return pa.list_(_plain(data_type.value_type, field))


def _plain_extension(data_type: pa.BaseExtensionType, field: str) -> pa.DataType:
    if data_type.extension_name == "arrow.json":
        return pa.json_()
    if data_type.extension_name == "arrow.bool8":
        return pa.bool_()
    if data_type.extension_name in {"arrow.uuid", "rundiff.cbor"}:
        return data_type
    raise ConfigurationError(
        f"The field `{field}` has the extension type {data_type.extension_name}, which can't be compared; "
        "convert the field to a plain type first."
    )


def _from_extension(array: pa.ExtensionArray, data_type: pa.DataType) -> pa.Array:
    if data_type == pa.json_():
        return pa.ExtensionArray.from_storage(data_type, array.storage.cast(pa.string()))
    return array.storage.cast(data_type)


def _children(data_type: pa.DataType) -> list[pa.DataType]:
    if kind.is_nested(data_type) and not isinstance(data_type, pa.BaseExtensionType):
        return [data_type.field(index).type for index in range(data_type.num_fields)]
    if kind.is_dictionary(data_type) or kind.is_run_end_encoded(data_type):
        return [data_type.value_type]
    return []


def _needs_mixed(data_type: pa.DataType) -> bool:
    if data_type == pa.month_day_nano_interval():
        return True
    return any(_needs_mixed(child) for child in _children(data_type))


def _is_list_view(data_type: pa.DataType) -> bool:
    return bool(kind.is_list_view(data_type) or kind.is_large_list_view(data_type))


def _list_of_view(array: pa.Array, data_type: pa.DataType) -> pa.Array:
    # Arrow's own cast (seen in 26.0) leaves out offsets where a list is null.
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    items = to_plain(pc.list_flatten(array), data_type.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=data_type, mask=pc.is_null(array))


def _is_uncastable(data_type: pa.DataType) -> bool:
    """Run-end encodings and list views inside of other types: Arrow casts them wrongly or not at all."""
    if kind.is_run_end_encoded(data_type) or _is_list_view(data_type):
        return True
    return any(_is_uncastable(child) for child in _children(data_type))
