"""Write records as Kafka messages: key, value and headers, rendered column by column.

The key is a JSON object of the primary key's fields, in their order, as Debezium's keys are without their
schema. The value is, by `kafka_value`:

- `change`: the object of the change stream (design section 7); a delete is a tombstone (a null value);
- `record`: the record's data; a delete is a tombstone;
- `debezium`: the envelope `before`, `after`, `source`, `op`, `ts_ms`; a delete is followed by a tombstone unless
  that is switched off.

Source of the envelope: https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Data change
events". The headers are `rundiff.sync`, `rundiff.run`, `rundiff.sequence`, `rundiff.action` and
`rundiff.idempotency_key`, all as UTF-8 text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.contract import ChangeBatch, Target
from rundiff.destinations.render import change_lines, joined, json_text
from rundiff.model import Action

__all__ = ["Form", "Header", "Messages", "Value", "render"]

Value = Literal["change", "record", "debezium"]
Header = tuple[str, bytes]

_TEXT = pa.large_string()
_ROWS = 16_384
"""Rows that are rendered at once, which bounds memory."""
_OVERHEAD = 128
"""Bytes of a record and its batch beside key, value and headers (Kafka's record format, version 2), at most."""
_OPS = {Action.CREATE: "c", Action.INSERT: "c", Action.UPDATE: "u", Action.DELETE: "d"}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What messages look like."""

    value: Value
    tombstones: bool
    """Whether a Debezium delete event is followed by a tombstone."""


class Messages(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of some write records; the lists are of one length, one entry a record."""

    first_sequence: int
    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    """None is a tombstone."""
    tombstones: bool
    """Whether each message is followed by a tombstone with the same key and headers."""
    sequences: Sequence[bytes]
    idempotency_keys: Sequence[bytes]
    headers: tuple[Header, ...]
    """What all of them carry."""
    sizes: np.ndarray
    """Bytes on the wire, from above."""


def render(target: Target, batch: ChangeBatch, form: Form) -> Iterator[Messages]:
    """Render a batch, some thousand records at a time."""
    for offset in range(0, batch.records.num_rows, _ROWS):
        yield _render(target, batch.slice(offset, min(_ROWS, batch.records.num_rows - offset)), form)


def _render(target: Target, batch: ChangeBatch, form: Form) -> Messages:
    records = batch.records
    numbers = np.arange(batch.first_sequence, batch.last_sequence + 1, dtype=np.int64)
    sequences = pc.cast(pa.array(numbers), _TEXT)
    keys = json_text(records.column("primary_key"))
    identities = joined(f"{target.sync_id}/{batch.run}/", sequences)
    values = _values(target, batch, form, sequences)
    headers = (
        ("rundiff.sync", target.sync.encode()),
        ("rundiff.run", str(batch.run).encode()),
        ("rundiff.action", str(batch.action).encode()),
    )
    constant = _OVERHEAD + sum(len(name) + len(value) for name, value in headers)
    columns = [keys, identities, sequences, *([] if values is None else [values])]
    sizes = np.full(records.num_rows, constant, np.int64)
    for column in columns:
        sizes += np.asarray(pc.binary_length(column))
    return Messages(
        first_sequence=batch.first_sequence,
        keys=_bytes(keys),
        values=[None] * records.num_rows if values is None else _bytes(values),
        tombstones=values is not None and batch.action is Action.DELETE and form.tombstones,
        sequences=_bytes(sequences),
        idempotency_keys=_bytes(identities),
        headers=headers,
        sizes=sizes,
    )


def _values(target: Target, batch: ChangeBatch, form: Form, sequences: pa.Array) -> pa.Array | None:
    """Give the values, or None where all of them are null."""
    if form.value == "debezium":
        return _envelopes(target, batch, sequences)
    if batch.action is Action.DELETE:
        return None
    return (
        change_lines(target, batch, end="")
        if form.value == "change"
        else json_text(batch.records.column("data"))
    )


def _envelopes(target: Target, batch: ChangeBatch, sequences: pa.Array) -> pa.Array:
    """Give Debezium's envelope without its schema.

    `before` is the last known data of a delete, or its key where these are gone; else null, for the write log
    holds what a record becomes. Both times are the one at which the run was sealed, the same on every repeat.
    """
    data = json_text(batch.records.column("data"))
    before, after = pa.scalar("null", _TEXT), data
    if batch.action is Action.DELETE:
        known = pc.is_valid(batch.records.column("data"))
        before, after = pc.if_else(known, data, json_text(batch.records.column("primary_key"))), before
    at = "null" if batch.sealed_at is None else str(int(batch.sealed_at.timestamp() * 1000))
    head = msgspec.json.encode(
        {
            "version": version("rundiff"),
            "connector": "rundiff",
            "name": target.sync,
            "snapshot": "false",
            "sync_id": target.sync_id,
            "run": batch.run,
        }
    ).decode()[:-1]
    return joined(
        '{"before":',
        before,
        ',"after":',
        after,
        f',"source":{head},"ts_ms":{at},"sequence":',
        sequences,
        f'}},"op":"{_OPS[batch.action]}","ts_ms":{at}}}',
    )


def _bytes(column: pa.Array) -> list[bytes]:
    found: list[bytes] = pc.cast(column, pa.large_binary()).to_pylist()
    return found
