"""The signer over Arrow batches: the reference's bytes, built column by column with NumPy and Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from rundiff.signing import mixed as _mixed  # noqa: F401 - registers rundiff.cbor
from rundiff.signing import reference
from rundiff.signing.blocks import (
    ARRAY,
    MAP,
    Column,
    Validity,
    constant,
    heads,
    join,
    spans,
    validity,
    within,
)
from rundiff.signing.contract import SignedBatch, SigningKey, Unsignable
from rundiff.signing.digest import digests
from rundiff.signing.scalars import encode_scalar
from rundiff.signing.signable import present_fields

__all__ = ["encode_records", "encode_values", "sign"]

_SLICE_ROWS = 32_768
"""Rows encoded at a time: their columns stay in the processor's cache."""
_SLICE_BYTES = 32 << 20
_HASH_BYTES = 64 << 20
"""Messages kept before they are hashed: bounds the memory, and gives all cores something to do."""
_DUPLICATE_KEY = "a map holds a key twice; make its keys unique"
_NULL_KEY = "a map has a null key; give every member a key"


def sign(batch: pa.RecordBatch, fields: Sequence[str], key: SigningKey | None = None) -> SignedBatch:
    """Sign each row over `fields` (see `rundiff.signing.contract.Signer`); safe to call from many threads."""
    names = present_fields(batch.schema, fields)
    secret = None if key is None else key.secret
    signatures: list[bytes] = []
    unsignable: list[Unsignable] = []
    waiting: list[pa.LargeBinaryArray] = []
    waiting_bytes = 0
    for start, part in _slices(batch.select(names)):
        messages, bad = encode_records(part)
        unsignable += [Unsignable(start + row, name, reason) for row, name, reason in bad]
        waiting.append(messages)
        waiting_bytes += messages.nbytes
        if waiting_bytes >= _HASH_BYTES:
            signatures.append(digests(waiting, secret))
            waiting, waiting_bytes = [], 0
    signatures.append(digests(waiting, secret))
    return SignedBatch(_signature_array(b"".join(signatures), unsignable), unsignable)


def encode_records(batch: pa.RecordBatch) -> tuple[pa.LargeBinaryArray, list[tuple[int, str, str]]]:
    """Encode each row as a map of its non-null fields.

    Gives the encodings, and (row, field, reason) for values that have none, by row; the encoding of
    such a row means nothing. The types must have passed `present_fields`.
    """
    columns = {name: _encode(batch.column(name)) for name in batch.schema.names}
    messages = join(_members(columns, batch.num_rows, None), batch.num_rows)
    bad = [(row, name, why) for name, column in columns.items() for row, why in column.bad.items()]
    return messages, sorted(bad)


def encode_values(array: pa.Array) -> pa.LargeBinaryArray:
    """Encode each value by itself, null as CBOR's null; what has no encoding gets bytes that mean nothing."""
    return _items(_encode(array), reference.NULL)


def _slices(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    rows = batch.num_rows
    if not rows:
        return
    most = max(1, _SLICE_BYTES * rows // max(1, batch.nbytes))
    step = min(_SLICE_ROWS, most)
    for start in range(0, rows, step):
        yield start, batch.slice(start, step)


def _signature_array(signatures: bytes, unsignable: Sequence[Unsignable]) -> pa.FixedSizeBinaryArray:
    rows = len(signatures) // 32
    bitmap = None
    if unsignable:
        valid = np.ones(rows, np.bool_)
        valid[[entry.row for entry in unsignable]] = False
        bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(32), rows, [bitmap, pa.py_buffer(signatures)])


def _encode(array: pa.Array) -> Column:  # noqa: PLR0911 - one branch per kind of Arrow type
    """Encode an array of any signable type."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType) or len(array) == 0:
        return encode_scalar(array)
    if pt.is_dictionary(kind):
        return _dictionary(array)
    if pt.is_run_end_encoded(kind):
        return _run_ends(array)
    if pt.is_struct(kind):
        return _struct(array)
    if pt.is_map(kind):
        return _map(array)
    if pt.is_fixed_size_list(kind):
        starts = (np.arange(len(array), dtype=np.int64) + array.offset) * kind.list_size
        return _list(array, starts, np.full(len(array), kind.list_size, np.int64))
    if pt.is_list_view(kind) or pt.is_large_list_view(kind):
        return _list(
            array, array.offsets.to_numpy().astype(np.int64), array.sizes.to_numpy().astype(np.int64)
        )
    if pt.is_list(kind) or pt.is_large_list(kind):
        return _list(array, *_edges(array.offsets))
    return encode_scalar(array)


def _edges(offsets: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    edges = offsets.to_numpy().astype(np.int64)
    return edges[:-1], np.diff(edges)


def _items(column: Column, null: bytes | None = None) -> pa.LargeBinaryArray:
    """One item a row: nulls become `null`, or stay nulls."""
    if null is None or column.valid is None:
        joined = join((column,), column.rows)
        return joined if column.valid is None else _with_validity(joined, column.valid)
    nulls = Column(column.rows, (constant(null, column.rows, ~column.valid),), None)
    return join((column, nulls), column.rows)


def _with_validity(items: pa.LargeBinaryArray, valid: Validity) -> pa.LargeBinaryArray:
    return spans(items, np.arange(len(items) + 1, dtype=np.int64), valid)


def _gathered(column: Column, places: NDArray[np.int64], valid: Validity) -> Column:
    """Take a column's items by row; rows that are not `valid` are null."""
    if column.rows == 0:
        return Column(len(places), (), np.zeros(len(places), np.bool_))
    if valid is not None:
        places = np.where(valid, places, 0)
    items = _items(column).take(pa.array(places))
    both = valid
    if column.valid is not None:
        found = column.valid[places]
        both = found if valid is None else found & valid
    return within(Column(len(places), (items,), None, _bad_at(column.bad, places)), both)


def _bad_at(bad: Mapping[int, str], places: NDArray[np.int64]) -> dict[int, str]:
    if not bad:
        return {}
    rows = np.flatnonzero(np.isin(places, list(bad)))
    return {int(row): bad[int(places[row])] for row in rows}


def _dictionary(array: pa.DictionaryArray) -> Column:
    indices, entries = array.indices, array.dictionary
    valid = validity(indices)
    if len(entries) > len(indices):
        # Few rows of a large dictionary: encode only what they refer to.
        used = pc.unique(indices.drop_null())
        try:
            entries = entries.take(used)
        except pa.ArrowNotImplementedError:
            pass  # Arrow can't take from views yet: encode the whole dictionary
        else:
            indices = pc.index_in(indices, used)
    places = indices.fill_null(0).to_numpy().astype(np.int64)
    return _gathered(_encode(entries), places, valid)


def _run_ends(array: pa.RunEndEncodedArray) -> Column:
    ends = array.run_ends.to_numpy()
    rows = np.arange(len(array), dtype=np.int64) + array.offset
    return _gathered(_encode(array.values), np.searchsorted(ends, rows, side="right"), None)


def _struct(array: pa.StructArray) -> Column:
    valid = validity(array)
    columns = {
        member.name: within(_encode(array.field(place)), valid) for place, member in enumerate(array.type)
    }
    bad: dict[int, str] = {}
    for column in columns.values():
        bad |= column.bad
    members = _members(columns, len(array), valid)
    if valid is None:
        return Column(len(array), [piece for member in members for piece in _absolute(member)], None, bad)
    return Column(len(array), (join(members, len(array)),), valid, bad)


def _absolute(column: Column) -> Iterator[Any]:
    """A column's pieces with their nulls written out, to stand inside a column without nulls."""
    for piece in column.pieces:
        is_constant = isinstance(piece, bytes)
        yield (
            constant(piece, column.rows, column.valid) if is_constant and column.valid is not None else piece
        )


def _members(columns: Mapping[str, Column], rows: int, valid: Validity) -> list[Column]:
    """The map's head, then each name and value in order of the encoded names, nulls left out."""
    named = sorted((reference.encode(name), column) for name, column in columns.items())
    always = sum(column.valid is None for _, column in named)
    counts = np.full(rows, always, np.int64)
    for _, column in named:
        if column.valid is not None:
            counts += column.valid
    if always == len(named) and valid is None:
        opening = Column(rows, (reference.head(MAP, always),))
    else:
        opening = Column(rows, (heads(MAP, counts, valid),), valid)
    return [opening, *(Column(rows, (name, *column.pieces), column.valid) for name, column in named)]


def _list(array: pa.Array, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Column:
    """Arrays of whatever `starts` and `sizes` (in the values of the whole array) give each row."""
    valid = validity(array)
    if valid is not None:
        sizes = np.where(valid, sizes, 0)
    values, places = _referred(array.values, starts, sizes)
    column = _encode(values)
    if places is not None:
        column = _gathered(column, places, None)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    items = _items(column, reference.NULL)
    bad = _bad_owners(column.bad, offsets)
    return Column(len(array), (heads(ARRAY, sizes, valid), spans(items, offsets, valid)), valid, bad)


def _referred(
    values: pa.Array, starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[pa.Array, NDArray[np.int64] | None]:
    """The part of `values` that rows refer to, and the places in it, None when they just follow on."""
    used = sizes > 0
    if not used.any():
        return values.slice(0, 0), None
    first = int(starts[used].min())
    last = int((starts + sizes)[used].max())
    total = int(sizes.sum())
    part = values.slice(first, last - first)
    follow_on = starts[used] == first + np.cumsum(sizes[used]) - sizes[used]
    if follow_on.all():
        return part, None
    before = np.cumsum(sizes) - sizes
    places = np.arange(total, dtype=np.int64) + np.repeat(starts - first - before, sizes)
    return part, places


def _bad_owners(bad: Mapping[int, str], offsets: NDArray[np.int64]) -> dict[int, str]:
    """Rows by the items that belong to them."""
    return {int(np.searchsorted(offsets, item, side="right")) - 1: why for item, why in bad.items()}


def _map(array: pa.MapArray) -> Column:
    valid = validity(array)
    starts, sizes = _edges(array.offsets)
    if valid is not None:
        sizes = np.where(valid, sizes, 0)
    keys, places = _referred(array.keys, starts, sizes)
    members, _ = _referred(array.items, starts, sizes)
    key_column, member_column = _encode(keys), _encode(members)
    if places is not None:
        key_column, member_column = (
            _gathered(key_column, places, None),
            _gathered(member_column, places, None),
        )
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    bad = _bad_owners({**key_column.bad, **member_column.bad}, offsets)
    owners = np.repeat(np.arange(len(array), dtype=np.int64), sizes)
    if key_column.valid is not None:
        bad |= {int(row): _NULL_KEY for row in owners[~key_column.valid]}
    entries, owners, duplicates = _ordered(key_column, member_column, owners)
    bad |= {int(row): _DUPLICATE_KEY for row in duplicates}
    counts = np.bincount(owners, minlength=len(array)).astype(np.int64)
    edges = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    return Column(len(array), (heads(MAP, counts, valid), spans(entries, edges, valid)), valid, bad)


def _ordered(
    keys: Column, members: Column, owners: NDArray[np.int64]
) -> tuple[pa.LargeBinaryArray, NDArray[np.int64], NDArray[np.int64]]:
    """Entries sorted by owner and encoded key, null members left out; and owners of duplicate keys."""
    key_items = _items(keys, reference.NULL)
    same_owner = owners[1:] == owners[:-1]
    places = None
    if not _ascending(key_items, same_owner):
        table = pa.table({"owner": owners, "key": key_items})
        places = (
            pc.sort_indices(table, [("owner", "ascending"), ("key", "ascending")]).to_numpy().astype(np.int64)
        )
        key_items = key_items.take(pa.array(places))
    equal = pc.equal(key_items[1:], key_items[:-1]).to_numpy(zero_copy_only=False).astype(np.bool_)
    duplicates = owners[1:][equal & same_owner]
    if places is not None:
        members = _gathered(members, places, None)
    present = members.valid
    entry = within(Column(len(owners), (key_items,), None), present)
    entries = join((entry, members), len(owners))
    if present is not None:
        places = np.flatnonzero(present)
        entries, owners = entries.take(pa.array(places)), owners[places]
    return entries, owners, duplicates


def _ascending(keys: pa.LargeBinaryArray, same_owner: NDArray[np.bool_]) -> bool:
    below = pc.less(keys[:-1], keys[1:]).to_numpy(zero_copy_only=False).astype(np.bool_)
    return bool((below | ~same_owner).all())
