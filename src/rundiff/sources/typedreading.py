"""One reading of a source whose records have Arrow types already: Parquet, Arrow, PyCapsule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from rundiff.errors import SourceError
from rundiff.sources.batches import fitting_batch, record_batch
from rundiff.sources.conform import conform
from rundiff.sources.contract import ReadBatch, ReadEnd, ReadRequest, Unreadable
from rundiff.sources.pins import arrow_type_of, canonical_pin, pin_of
from rundiff.sources.plain import plain_type, to_plain
from rundiff.sources.spelling import Mask
from rundiff.sources.textreading import Pass
from rundiff.sources.texttypes import shortened

__all__ = ["MAX_ROWS", "TypedReading", "check_names"]

MAX_ROWS = 131_072
"""Larger batches (a whole table in one) are handed on in slices."""


class TypedReading:
    """One reading; see `contract.Reading`. Batches that have the pinned types pass untouched."""

    def __init__(
        self,
        walk: Callable[[Pass], Iterator[tuple[pa.RecordBatch, Callable[[int], str]]]],
        request: ReadRequest,
        total_bytes: int | None,
    ) -> None:
        self._walk = walk
        self._asked = {name: canonical_pin(pin) for name, pin in request.options.types.items()}
        self._pins = dict(request.pins or {})
        self._pins.update({name: pin for name, pin in self._asked.items() if name in self._pins})
        self._fitting: set[pa.Schema] = set()
        self._pass = Pass()
        self.total_bytes = total_bytes

    @property
    def pins(self) -> Mapping[str, str]:
        """The pinned types of all fields ever seen with a type."""
        return dict(self._pins)

    @property
    def end(self) -> ReadEnd:
        """What is known at the end."""
        return ReadEnd(incomplete=tuple(self._pass.incomplete))

    @property
    def bytes_read(self) -> int | None:
        """How much of `total_bytes` was read so far."""
        return None if self.total_bytes is None else min(self._pass.bytes_read, self.total_bytes)

    def __iter__(self) -> Iterator[ReadBatch]:
        known: pa.Schema = None
        fits = False
        for whole, locate in self._walk(self._pass):
            if known is None or not whole.schema.equals(known):
                known = whole.schema
                fits = self._learn(known)
            for start in range(0, whole.num_rows, MAX_ROWS) if whole.num_rows > MAX_ROWS else (0,):
                batch = whole.slice(start, MAX_ROWS)
                yield ReadBatch(batch) if fits else self._conformed(batch, locate, start)

    def _learn(self, schema: pa.Schema) -> bool:
        """Pin the fields that are new; say whether batches of this schema need no work at all."""
        fits = schema.metadata is None
        for member in schema:
            name = member.name
            plain = plain_type(member.type, name)
            pin = self._pins.get(name) or self._asked.get(name) or pin_of(plain)
            if pin is not None and name not in self._asked and pa.types.is_nested(plain):
                pin = pin_of(_widened(arrow_type_of(pin), plain))
            if pin is not None:
                self._pins[name] = pin
            fits = fits and pin is not None and member.type == arrow_type_of(pin) and member.metadata is None
        return fits

    def _conformed(self, batch: pa.RecordBatch, locate: Callable[[int], str], start: int) -> ReadBatch:
        columns: dict[str, pa.Array] = {}
        misfits: dict[str, Mask] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            plain = to_plain(column, plain_type(column.type, name))
            pin = self._pins.get(name)
            if pin is None:
                columns[name] = _without_values(plain)
                continue
            columns[name], misfit = conform(plain, pin, explicit=name in self._asked)
            if misfit is not None:
                misfits[name] = misfit

        def explain(row: int, name: str) -> Unreadable:
            value = shortened(batch.column(name)[row].as_py())
            return Unreadable(
                locate(start + row),
                f"{value} does not fit the type of the field `{name}`, {self._pins[name]}",
                name,
            )

        return fitting_batch(record_batch(columns, batch.num_rows), misfits, (), explain)


def check_names(schema: pa.Schema, label: str) -> None:
    """Refuse a schema with fields that can't be told apart or signed, before the run begins."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SourceError(f"{label} has more than one field {', '.join(map(repr, twice))}; rename them.")
    for member in schema:
        plain_type(member.type, member.name)


def _widened(pinned: pa.DataType, found: pa.DataType) -> pa.DataType:
    """Add the members that a struct has gained; everything else stays as it is pinned.

    A cast would drop them without a word, and a member that is null changes no signature.
    """
    if isinstance(pinned, pa.BaseExtensionType) or isinstance(found, pa.BaseExtensionType):
        return pinned
    if pa.types.is_list(pinned) and pa.types.is_list(found):
        return pa.list_(_widened(pinned.value_type, found.value_type))
    if pa.types.is_map(pinned) and pa.types.is_map(found):
        return pa.map_(_widened(pinned.key_type, found.key_type), _widened(pinned.item_type, found.item_type))
    if not (pa.types.is_struct(pinned) and pa.types.is_struct(found)):
        return pinned
    members = {member.name: member.type for member in pinned}
    for member in found:
        if member.name in members:
            members[member.name] = _widened(members[member.name], member.type)
        elif pin_of(member.type) is not None:
            members[member.name] = member.type
    return pa.struct(list(members.items()))


def _without_values(array: pa.Array) -> pa.Array:
    """A field without a pin holds no value; null text stands for it, nested emptiness stays."""
    return pa.nulls(len(array), pa.string()) if pa.types.is_null(array.type) else array
