"""Bring batches whose fields or types differ to one schema, without changing a value.

Rows of mappings may bring another set of fields, or another type, in every batch. Where types
differ and no one type holds both sides' values as they are, values become `rundiff.cbor`: each one
in its own dCBOR encoding, exactly as it is signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

__all__ = ["as_struct", "conform", "is_flat", "repeating_fields", "unify_schemas", "unify_types"]

_SAMPLE = 4096

_FLAT = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_decimal128,
    pa.types.is_decimal256,
    pa.types.is_date32,
    pa.types.is_time,
    pa.types.is_timestamp,
)


def is_flat(kind: pa.DataType) -> bool:
    """Say whether a type is a plain one without members, whose values all readers of files give alike."""
    return not isinstance(kind, pa.BaseExtensionType) and any(test(kind) for test in _FLAT)


def repeating_fields(records: pa.StructArray) -> list[str]:
    """Name the plain fields half of whose values, or more, repeat others, as a sample shows.

    Only these gain from a dictionary in a file; of the others it takes as long to build as all the rest
    of writing them, and makes the file larger.
    """
    import pyarrow.compute as pc

    sample = records.slice(0, _SAMPLE)
    fields = zip(sample.type, sample.flatten(), strict=True)
    return [
        field.name
        for field, values in fields
        if is_flat(field.type) and 2 * pc.count_distinct(values).as_py() <= len(sample)
    ]


def unify_types(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """Give the type that holds both sides' values unchanged; `rundiff.cbor` if there is no other."""
    from rundiff.signing.mixed import MixedType

    if left.equals(right) or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    for one, other in ((left, right), (right, left)):
        if pa.types.is_integer(one) and pa.types.is_integer(other):
            return _wider_integer(one, other)
        if isinstance(one, MixedType):
            return one
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return pa.struct(unify_fields([list(left), list(right)]))
    if pa.types.is_list(left) and pa.types.is_list(right):
        return pa.list_(unify_types(left.value_type, right.value_type))
    return MixedType()


def _wider_integer(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    from rundiff.signing.mixed import MixedType

    signed = [pa.types.is_signed_integer(t) for t in (left, right)]
    if all(signed) or not any(signed):
        return left if left.bit_width >= right.bit_width else right
    widest = max(t.bit_width for t, s in zip((left, right), signed, strict=True) if not s)
    return pa.int64() if widest < 64 else MixedType()


def unify_fields(schemas: Sequence[Iterable[pa.Field]]) -> list[pa.Field]:
    """Give the union of fields in order of appearance, all nullable."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            known = types.get(field.name)
            types[field.name] = field.type if known is None else unify_types(known, field.type)
    return [pa.field(name, kind) for name, kind in types.items()]


def unify_schemas(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Give the schema that holds the records of all."""
    return pa.schema(unify_fields(schemas))


def conform(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Bring an array to a type that `unify_types` gave for its own."""
    from rundiff.signing.mixed import MixedType, encode

    if array.type.equals(kind):
        return array
    if pa.types.is_null(array.type) or pa.types.is_null(kind):
        # The null type is asked for only where every value is null.
        return pa.nulls(len(array), kind)
    if isinstance(kind, MixedType):
        return encode(array.to_pylist())
    if pa.types.is_struct(kind):
        have = {array.type.field(i).name: i for i in range(array.type.num_fields)}
        children = [
            conform(array.field(have[f.name]), f.type) if f.name in have else pa.nulls(len(array), f.type)
            for f in kind
        ]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(kind):
        # Going by Python values: rare (a list whose items changed their type between batches).
        return pa.array(array.to_pylist(), kind)
    return array.cast(kind)


def as_struct(columns: Mapping[str, pa.Array], kind: pa.StructType, rows: int) -> pa.StructArray:
    """Gather columns into a struct of the given fields; those that are missing are null."""
    children = [
        conform(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type) for f in kind
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind))
