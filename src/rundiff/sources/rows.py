"""Any iterable of mappings: a list of dicts, a generator, rows of a database cursor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.types as kind

from rundiff.sources.batches import columns_of, fitting_batch, record_batch
from rundiff.sources.conform import conform
from rundiff.sources.contract import ReadBatch, ReadEnd, ReadRequest, Unreadable
from rundiff.sources.mixedvalues import mixed_column
from rundiff.sources.pins import arrow_type_of, canonical_pin, pin_of
from rundiff.sources.pythontypes import arrow_column
from rundiff.sources.spelling import Mask
from rundiff.sources.texttypes import shortened

__all__ = ["RowsReading", "RowsSource", "wider_pin"]

BATCH_ROWS = 10_000


class RowsSource:
    """Rows that the caller hands over; a generator is read once."""

    may_delete_without_count = True
    location = "rows"

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[RowsReading]:
        """Begin one reading; see `contract.Source`."""
        yield RowsReading(self._rows, request)


class RowsReading:
    """One reading; see `contract.Reading`.

    No row becomes unreadable for its types: a column that does not fit its pin any more is delivered
    as `rundiff.cbor` in that batch, and the pin widens. Types that a person asked for stay as asked.
    """

    total_bytes: int | None = None
    bytes_read: int | None = None

    def __init__(self, rows: Iterable[Any], request: ReadRequest) -> None:
        self._rows = rows
        self._asked = {name: canonical_pin(pin) for name, pin in request.options.types.items()}
        self._pins = dict(request.pins or {})
        self._pins.update({name: pin for name, pin in self._asked.items() if name in self._pins})

    @property
    def pins(self) -> Mapping[str, str]:
        """The pinned types of all fields ever seen with a value."""
        return dict(self._pins)

    @property
    def end(self) -> ReadEnd:
        """What is known at the end."""
        return ReadEnd()

    def __iter__(self) -> Iterator[ReadBatch]:
        rows, done = iter(self._rows), 0
        # Python values come one by one; each is touched once here and then belongs to Arrow.
        while chunk := list(islice(rows, BATCH_ROWS)):
            yield self._batch(chunk, done)
            done += len(chunk)

    def _batch(self, chunk: Sequence[Any], before: int) -> ReadBatch:
        records: list[Mapping[str, Any]] = []
        places: list[int] = []
        unreadable: list[Unreadable] = []
        names: dict[str, None] = {}
        for place, row in enumerate(chunk, before + 1):
            reason = _defect(row, names)
            if reason is None:
                records.append(row)
                places.append(place)
            else:
                unreadable.append(Unreadable(f"row {place}", reason))
        columns: dict[str, pa.Array] = {}
        misfits: dict[str, Mask] = {}
        for name, values in columns_of(records, list(names)).items():
            columns[name], misfit = self._column(name, values)
            if misfit is not None:
                misfits[name] = misfit

        def explain(row: int, name: str) -> Unreadable:
            return Unreadable(f"row {places[row]}", self._reason(name, records[row].get(name)), name)

        return fitting_batch(record_batch(columns, len(records)), misfits, unreadable, explain)

    def _column(self, name: str, values: Sequence[Any]) -> tuple[pa.Array, Mask | None]:
        array, unsignable = arrow_column(values)
        found = pin_of(array.type)
        if found is None:
            pin = self._pins.get(name)
            return pa.nulls(len(values), arrow_type_of(pin) if pin else pa.string()), unsignable
        if name in self._asked:
            self._pins[name] = self._asked[name]
            array, misfit = conform(array, self._asked[name], explicit=True)
            return array, _either(misfit, unsignable)
        pin = self._pins.setdefault(name, found)
        if pin == found:
            return array, unsignable
        for candidate in (pin, wider_pin(pin, found)):
            if candidate == "mixed" or _changes_values(array.type, arrow_type_of(candidate)):
                continue
            fitted, misfit = conform(array, candidate)
            if misfit is None:
                self._pins[name] = candidate
                return fitted, unsignable
        self._pins[name] = "mixed"
        return mixed_column(values)

    def _reason(self, name: str, value: Any) -> str:
        if name in self._asked:
            return f"{shortened(value)} does not fit the type of the field `{name}`, {self._pins[name]}"
        return f"the field `{name}` holds {shortened(value)}, a value that can't be signed"


def _defect(row: Any, names: dict[str, None]) -> str | None:
    """Say why a row is no record, or take its names in."""
    if not isinstance(row, Mapping):
        return f"it is no mapping but of the type {type(row).__name__}"
    if not row.keys() <= names.keys():
        for name in row:
            if not isinstance(name, str):
                return f"it has the key {shortened(name)}, which is no text"
            try:
                name.encode()
            except UnicodeEncodeError:
                return "it has a key with a lone surrogate, which is no valid text"
        names.update(dict.fromkeys(row))
    return None


def _changes_values(found: pa.DataType, target: pa.DataType) -> bool:
    """Between floats and decimals a value changes: Decimal("0.5") is not 0.5 (design section 3)."""
    pair = (
        kind.is_floating(found),
        kind.is_decimal(found),
        kind.is_floating(target),
        kind.is_decimal(target),
    )
    return pair in {(True, False, False, True), (False, True, True, False)}


def wider_pin(pin: str, found: str) -> str:
    """Give the pin that keeps the values of both, as far as one does."""
    old, new = arrow_type_of(pin), arrow_type_of(found)
    if kind.is_integer(old) and kind.is_integer(new):
        return "decimal(38,0)"
    if kind.is_integer(old) and kind.is_floating(new):
        return found
    if _exact(old) and _exact(new):
        (before, after), (more, further) = _digits(old), _digits(new)
        before, after = max(before, more), max(after, further)
        return f"decimal({38 if before + after <= 38 else 76},{after})" if before + after <= 76 else "mixed"
    if kind.is_timestamp(old) and kind.is_timestamp(new):
        unit = max(old.unit, new.unit, key=_UNITS.index)
        return str(pin_of(pa.timestamp(unit, "UTC" if old.tz or new.tz else None)))
    if kind.is_duration(old) and kind.is_duration(new):
        return str(pin_of(pa.duration(max(old.unit, new.unit, key=_UNITS.index))))
    return "mixed"


_UNITS = ("s", "ms", "us", "ns")


def _exact(data_type: pa.DataType) -> bool:
    return bool(kind.is_integer(data_type) or kind.is_decimal(data_type))


def _digits(data_type: pa.DataType) -> tuple[int, int]:
    # A decimal's precision is room, not need: what was pinned keeps 19 digits before the point.
    if kind.is_integer(data_type):
        return 20, 0
    return min(20, data_type.precision - data_type.scale), data_type.scale


def _either(left: Mask | None, right: Mask | None) -> Mask | None:
    if left is None or right is None:
        return right if left is None else left
    return left | right
