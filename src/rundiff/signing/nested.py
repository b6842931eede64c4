"""What stands inside of nested Arrow arrays: taking parts of it, and changing values at any depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from rundiff.signing import mixed
from rundiff.signing import normalised as scalar
from rundiff.signing.arrow import encode_values
from rundiff.signing.jsontext import encode_texts
from rundiff.signing.paths import ITEMS, Parts, Selection, inner_paths
from rundiff.signing.reference import NULL

__all__ = [
    "at_path",
    "by_value",
    "from_json",
    "leaves",
    "on_leaves",
    "plain",
    "selected",
    "typed",
    "unordered",
]

ArrayFunction = Callable[[pa.Array], pa.Array]


def plain(array: pa.Array) -> pa.Array:
    """Unpack dictionaries, run ends and list views, at the top; what is inside is unpacked where it is met."""
    kind = array.type
    if pt.is_dictionary(kind):
        return _taken(array.dictionary, array.indices.cast(pa.int64()))
    if pt.is_run_end_encoded(kind):
        rows = np.arange(len(array), dtype=np.int64) + array.offset
        return _taken(array.values, pa.array(np.searchsorted(array.run_ends.to_numpy(), rows, side="right")))
    if pt.is_list_view(kind) or pt.is_large_list_view(kind):
        sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))
        return _list_of(offsets, pc.list_flatten(array), array)
    return array


def is_list(kind: pa.DataType) -> bool:
    """Say whether a type is a list; `plain` has made views into lists."""
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def leaves(kind: pa.DataType) -> list[pa.DataType]:
    """Give the types of all values inside of a type, but those of the keys of maps."""
    if isinstance(kind, pa.BaseExtensionType):
        return [kind]
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return leaves(kind.value_type)
    if pt.is_struct(kind):
        return [leaf for member in kind for leaf in leaves(member.type)]
    if pt.is_map(kind):
        return leaves(kind.item_type)
    if is_list(kind) or pt.is_list_view(kind) or pt.is_large_list_view(kind):
        return leaves(kind.value_type)
    return [kind]


def on_leaves(array: pa.Array, fits: Callable[[pa.DataType], bool], function: ArrayFunction) -> pa.Array:
    """Apply a function to all values of fitting types inside of an array, but not to the keys of maps."""
    array = plain(array)
    kind = array.type
    if not any(fits(leaf) for leaf in leaves(kind)):
        return array
    if isinstance(kind, pa.BaseExtensionType) or fits(kind):
        return function(array)
    if pt.is_struct(kind):
        return _struct_of(array, [on_leaves(array.field(i), fits, function) for i in range(kind.num_fields)])
    return _with_items(array, lambda items: on_leaves(items, fits, function))


def selected(array: pa.Array, selection: Selection) -> pa.Array:
    """Take parts of nested values; what is left out becomes null, which counts as missing."""
    if selection.is_whole:
        return array
    array = plain(array)
    kind = array.type
    if isinstance(kind, mixed.MixedType):
        return by_value(array, lambda value: scalar.selected(value, selection))
    if pt.is_struct(kind):
        inner = [selection.member(member.name) for member in kind]
        return _struct_of(
            array,
            [
                pa.nulls(len(array)) if part is None else selected(array.field(i), part)
                for i, part in enumerate(inner)
            ],
        )
    if pt.is_map(kind):
        return _selected_entries(array, selection)
    if is_list(kind):
        return _with_items(array, lambda items: selected(items, selection.items))
    return array if selection.include is None else pa.nulls(len(array))


def _selected_entries(array: pa.MapArray, selection: Selection) -> pa.Array:
    """Leave out entries of maps by their keys, where these are text; an entry is taken whole or not at all."""
    offsets, keys, items = _map_parts(array)
    if not pt.is_string(keys.type):
        return array if selection.include is None else pa.nulls(len(array))
    names = [name for name in pc.unique(keys).to_pylist() if selection.member(name) is not None]
    mask = pc.is_in(keys, value_set=pa.array(names, keys.type)).to_numpy(zero_copy_only=False)
    places = pa.array(np.flatnonzero(mask))
    kept = np.concatenate((np.zeros(1, np.int64), np.cumsum(mask, dtype=np.int64)))[offsets]
    return _map_of(kept, keys.take(places), _taken(items, places), array)


def at_path(array: pa.Array, parts: Parts, function: ArrayFunction) -> pa.Array:
    """Apply a function to what stands at a path; raises `KeyError` where a type has no such path."""
    if not parts:
        return function(array)
    array = plain(array)
    kind = array.type
    if pt.is_null(kind):
        return array
    if pt.is_struct(kind):
        found = inner_paths(parts, [member.name for member in kind])
        if not found:
            raise KeyError(parts[0])
        name, rest = found[0]
        at = kind.get_field_index(name)
        children = [array.field(i) for i in range(kind.num_fields)]
        children[at] = at_path(children[at], rest, function)
        return _struct_of(array, children)
    if is_list(kind) and parts[0] == ITEMS:
        return _with_items(array, lambda items: at_path(items, parts[1:], function))
    raise KeyError(parts[0])


def by_value(array: pa.Array, function: Callable[[object], object]) -> pa.Array:
    """Apply a function to each different value of a `rundiff.cbor` array, in Python."""
    different = array.storage.dictionary_encode()
    entries = pa.ExtensionArray.from_storage(mixed.MixedType(), different.dictionary)
    made = mixed.encode(map(function, mixed.decode(entries)))
    return pa.ExtensionArray.from_storage(mixed.MixedType(), made.storage.take(different.indices))


def typed(array: pa.Array) -> pa.Array | None:
    """Give a `rundiff.cbor` array as one of a plain type with the very same encodings; None where there is none.

    Values of one shape, such as lists of numbers, then need no Python one by one.
    """
    different = array.storage.dictionary_encode()
    entries = pa.ExtensionArray.from_storage(mixed.MixedType(), different.dictionary)
    try:
        made = pa.array(mixed.decode(entries))
        same = pc.equal(encode_values(made), different.dictionary.cast(pa.large_binary()))
    except (pa.ArrowException, OverflowError, UnicodeError, RecursionError):
        return None
    return made.take(different.indices) if pc.all(same).as_py() is not False else None


def from_json(array: pa.Array) -> pa.Array:
    """Read JSON text into `rundiff.cbor` values; text that is no JSON becomes binary, which JSON has none of."""
    texts = array.storage if isinstance(array.type, pa.BaseExtensionType) else array
    different = texts.cast(pa.large_binary()).dictionary_encode()
    encodings = encode_texts(different.dictionary.to_pylist())
    made = pa.array([None if item == NULL else item for item in encodings], pa.binary())
    return pa.ExtensionArray.from_storage(mixed.MixedType(), made.take(different.indices))


def unordered(array: pa.Array, *, deep: bool) -> pa.Array:
    """Sort the items of lists by their encodings; of lists inside of lists only if `deep`."""
    array = plain(array)
    kind = array.type
    if pt.is_struct(kind):
        return _struct_of(array, [unordered(array.field(i), deep=deep) for i in range(kind.num_fields)])
    if pt.is_map(kind):
        return _with_items(array, lambda items: unordered(items, deep=deep))
    if not is_list(kind):
        return array
    offsets, items = _list_parts(array)
    if deep:
        items = unordered(items, deep=True)
    owners = np.repeat(np.arange(len(array), dtype=np.int64), np.diff(offsets))
    keys = {"owner": pa.array(owners), **_order_of_encodings(items)}
    # Nulls come last, as CBOR's null does among whatever a list may hold beside it.
    order = pc.sort_indices(pa.table(keys), [(key, "ascending") for key in keys])
    return _list_of(offsets, _taken(items, order), array)


def _order_of_encodings(items: pa.Array) -> dict[str, pa.Array]:
    """Give columns that order items as their encodings do, without encoding them where that is known."""
    kind = items.type
    if pt.is_unsigned_integer(kind):
        return {"value": items}
    if pt.is_integer(kind):
        # First those from 0 on, then -1, -2 and so on.
        below = pc.less(items, pa.scalar(0, kind))
        return {"below": below, "value": pc.if_else(below, pc.bit_wise_not(items), items)}
    if pt.is_string(kind) or pt.is_large_string(kind):
        return {"length": pc.binary_length(items), "value": items}
    return {"value": encode_values(items)}


# Taking nested arrays apart and putting them together

Offsets = NDArray[np.int64]


def _struct_of(array: pa.StructArray, children: list[pa.Array]) -> pa.StructArray:
    names = [member.name for member in array.type]
    if not names:
        return array
    return pa.StructArray.from_arrays(children, names, mask=_null_mask(array))


def _with_items(array: pa.Array, function: ArrayFunction) -> pa.Array:
    """Apply a function to the items of a list, or to those of a map."""
    if pt.is_map(array.type):
        offsets, keys, items = _map_parts(array)
        return _map_of(offsets, keys, function(items), array)
    offsets, items = _list_parts(array)
    return _list_of(offsets, function(items), array)


def _taken(array: pa.Array, places: pa.Array) -> pa.Array:
    """Take values by their places; where Arrow can't take from their type, as the encodings that they have."""
    try:
        return array.take(places)
    except pa.ArrowNotImplementedError:
        # Seen of lists of extension types.
        encodings = encode_values(array).cast(pa.binary())
        known = pc.if_else(pc.equal(encodings, NULL), None, encodings)
        return pa.ExtensionArray.from_storage(mixed.MixedType(), known.take(places))


def _edges(array: pa.Array) -> tuple[Offsets, int, int]:
    """Give the offsets of lists or maps from 0 on, and which part of their values they are of.

    What stands under nulls is kept: to leave it out would mean to copy values of types that Arrow can't copy.
    """
    if pt.is_fixed_size_list(array.type):
        size = array.type.list_size
        edges = (np.arange(len(array) + 1, dtype=np.int64) + array.offset) * size
    else:
        edges = array.offsets.to_numpy().astype(np.int64)
    first = int(edges[0]) if len(edges) else 0
    last = int(edges[-1]) if len(edges) else 0
    return edges - first, first, last - first


def _list_parts(array: pa.Array) -> tuple[Offsets, pa.Array]:
    offsets, first, count = _edges(array)
    return offsets, array.values.slice(first, count)


def _map_parts(array: pa.MapArray) -> tuple[Offsets, pa.Array, pa.Array]:
    offsets, first, count = _edges(array)
    return offsets, array.keys.slice(first, count), array.items.slice(first, count)


def _list_of(offsets: Offsets, items: pa.Array, like: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(offsets), items, mask=_null_mask(like))


def _map_of(offsets: Offsets, keys: pa.Array, items: pa.Array, like: pa.Array) -> pa.Array:
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, items, mask=_null_mask(like))


def _null_mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None
