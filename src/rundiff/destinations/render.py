"""Columns as JSON text, and write records as lines of the change stream (design section 7).

Everything is rendered column by column: a record is never looked at by Python unless one of its
values needs an escape, is binary or of a mixed type.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.contract import ChangeBatch, Target
from rundiff.destinations.kinds import Kind, kind_of
from rundiff.destinations.mixed import SAFE_INTEGER, decode, mixed_json
from rundiff.destinations.spelling import hex_text, plain_text

__all__ = ["base64_text", "change_lines", "joined", "json_text"]

_TEXT = pa.large_string()


def json_text(array: pa.Array) -> pa.Array:
    """Give each value of a column as JSON text (large_string); null becomes `null`.

    Integers beyond ±(2^53 - 1) and decimals are JSON strings of their digits; dates, times,
    timestamps, durations and UUIDs strings as `rundiff.destinations.spelling` spells them; binary
    is base64 (RFC 4648 section 4); NaN and infinities are `null`; a JSON extension value is a
    string of its text; maps are objects, with keys that aren't text spelled as text.
    """
    return pc.fill_null(_RENDERERS[kind_of(array.type)](array), "null")


def change_lines(target: Target, batch: ChangeBatch, *, end: str = "\n") -> pa.Array:
    """Give each write record of a batch as one line of the change stream, which ends in `end`."""
    records = batch.records
    last = batch.first_sequence + records.num_rows
    sequence = pc.cast(pa.array(np.arange(batch.first_sequence, last, dtype=np.int64)), _TEXT)
    head = f'{{"sync":{_quoted(target.sync)},"run":{batch.run},"sequence":'
    identity = f"{target.sync_id}/{batch.run}/"
    return joined(
        head,
        sequence,
        f',"action":"{batch.action}","primary_key":',
        json_text(records.column("primary_key")),
        ',"data":',
        json_text(records.column("data")),
        ',"changed_fields":',
        json_text(records.column("changed_fields")),
        ',"primary_key_signature":',
        _signatures(records.column("primary_key_signature")),
        ',"data_signature":',
        _signatures(records.column("data_signature")),
        ',"idempotency_key":"' + _quoted(identity)[1:-1],
        sequence,
        f'"}}{end}',
    )


def joined(*parts: pa.Array | pa.Scalar | str) -> pa.Array:
    """Join columns and constants row by row, as large_string; a null in one of them makes the row null."""
    pieces = [pa.scalar(part, _TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*pieces, pa.scalar("", _TEXT))


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _signatures(array: pa.Array) -> pa.Array:
    return pc.fill_null(joined('"', hex_text(array), '"'), "null")


def _numbers(array: pa.Array) -> pa.Array:
    text = pc.cast(array, _TEXT)
    if array.type.bit_width < 64:
        return text
    beyond = pc.greater(array, pa.scalar(SAFE_INTEGER, array.type))
    if array.type == pa.int64():
        beyond = pc.or_(beyond, pc.less(array, -SAFE_INTEGER))
    return pc.if_else(beyond, joined('"', text, '"'), text) if pc.any(beyond).as_py() else text


def _floats(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_finite(array), plain_text(array), pa.scalar(None, _TEXT))


def _texts(array: pa.Array) -> pa.Array:
    text = pc.cast(array, _TEXT)
    # RFC 8259 section 7: quotation mark, reverse solidus and control characters must be escaped.
    ugly = pc.fill_null(pc.match_substring_regex(text, r'[\x00-\x1f"\\]'), False)
    if pc.any(ugly).as_py():
        # One by one, but only those that need it: Arrow has no function that escapes.
        escaped = [_quoted(value)[1:-1] for value in text.filter(ugly).to_pylist()]
        text = pc.replace_with_mask(text, ugly, pa.array(escaped, _TEXT))
    return joined('"', text, '"')


def _spelled(array: pa.Array) -> pa.Array:
    return joined('"', plain_text(array), '"')


def _json(array: pa.Array) -> pa.Array:
    return _texts(array.storage)


def base64_text(array: pa.Array) -> pa.Array:
    """Spell binary values in base64 (RFC 4648 section 4), as large_string; null stays null."""
    # One by one: Arrow has no base64.
    return pa.array([None if item is None else _base64(item) for item in array.to_pylist()], _TEXT)


def _binaries(array: pa.Array) -> pa.Array:
    return joined('"', base64_text(array), '"')


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _nested(array: pa.Array) -> pa.Array:
    if pa.types.is_struct(array.type):
        return _structs(array)
    if pa.types.is_map(array.type):
        return _maps(array)
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return _masked(joined("[", _listed(json_text(array.flatten()), lengths), "]"), array)


def _listed(values: pa.Array, lengths: pa.Array) -> pa.Array:
    """Join runs of values with commas."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.asarray(lengths), out=offsets[1:])
    return pc.binary_join(pa.LargeListArray.from_arrays(pa.array(offsets), values), pa.scalar(",", _TEXT))


def _masked(text: pa.Array, like: pa.Array) -> pa.Array:
    return pc.if_else(like.is_valid(), text, pa.scalar(None, _TEXT)) if like.null_count else text


def _structs(array: pa.Array) -> pa.Array:
    parts: list[pa.Array | str] = []
    lead = "{"
    for field, column in zip(array.type, array.flatten(), strict=True):
        parts += [f"{lead}{_quoted(field.name)}:", json_text(column)]
        lead = ","
    if not parts:
        return _masked(pa.array(["{}"] * len(array), _TEXT), array)
    return _masked(joined(*parts, "}"), array)


def _maps(array: pa.Array) -> pa.Array:
    offsets = np.asarray(array.offsets).astype(np.int64)
    lengths = np.diff(offsets)
    valid = np.asarray(array.is_valid())
    start, stop = int(offsets[0]), int(offsets[-1])
    keys, items = array.keys.slice(start, stop - start), array.items.slice(start, stop - start)
    if lengths[~valid].any():  # a null may hide entries
        shown = pa.array(np.repeat(valid, lengths))
        keys, items = keys.filter(shown), items.filter(shown)
    entries = joined(_map_keys(keys), ":", json_text(items))
    text = _listed(entries, pa.array(np.where(valid, lengths, 0)))
    return _masked(joined("{", text, "}"), array)


def _map_keys(keys: pa.Array) -> pa.Array:
    rendered = json_text(keys)
    is_text = pc.starts_with(rendered, '"')
    return rendered if pc.all(is_text).as_py() else pc.if_else(is_text, rendered, _texts(rendered))


def _mixed(array: pa.Array) -> pa.Array:
    # One by one: each value has a type of its own.
    return pa.array([None if value is None else mixed_json(value) for value in decode(array)], _TEXT)


def _null(array: pa.Array) -> pa.Array:
    return pa.nulls(len(array), _TEXT)


_RENDERERS: dict[Kind, Callable[[pa.Array], pa.Array]] = {
    Kind.NULL: _null,
    Kind.BOOLEAN: plain_text,
    Kind.INTEGER: _numbers,
    Kind.UNSIGNED: _numbers,
    Kind.FLOAT: _floats,
    Kind.DECIMAL: _spelled,
    Kind.TEXT: _texts,
    Kind.BINARY: _binaries,
    Kind.DATE: _spelled,
    Kind.TIME: _spelled,
    Kind.TIMESTAMP: _spelled,
    Kind.DURATION: _spelled,
    Kind.INTERVAL: _spelled,
    Kind.UUID: _spelled,
    Kind.JSON: _json,
    Kind.NESTED: _nested,
    Kind.MIXED: _mixed,
}
