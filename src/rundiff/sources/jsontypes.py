"""Types of JSON fields: numbers by their digits, text, true and false, and everything else by value.

| the values of a field | pin |
|---|---|
| numbers | integer, unsigned, double or decimal, as for text (`texttypes`) |
| strings | text, or a date, time or timestamp if all are ISO 8601 |
| true, false | boolean |
| arrays, objects, mixes of the above, numbers beyond 76 digits | mixed: each value signed as it is |
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from rundiff.sources.mixedvalues import mixed_column
from rundiff.sources.numbers import NumberGuess
from rundiff.sources.pins import arrow_type_of
from rundiff.sources.spelling import Mask
from rundiff.sources.temporal import TemporalGuess, takes_temporal
from rundiff.sources.texttypes import fit_text, shortened

__all__ = ["JsonFields"]

_NULL = type(None)
_NUMBERS = {int, Decimal}


class _JsonGuess:
    """Finds the pin of a field, shown column by column."""

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._numbers = NumberGuess()
        self._temporal = TemporalGuess()
        self._empty_text = False

    def add(self, column: Sequence[Any]) -> None:
        """Look at more values; None is no value."""
        kinds = set(map(type, column)) - {_NULL}
        self._kinds |= kinds
        if self._kinds <= _NUMBERS and self._numbers.possible:
            self._numbers.add(pa.array([str(value) for value in column if value is not None], pa.string()))
        elif self._kinds == {str} and self._temporal.possible:
            texts = [value for value in column if value]
            self._empty_text = self._empty_text or "" in column
            self._temporal.add(pa.array(texts, pa.string()))

    @property
    def pin(self) -> str | None:
        """The pin, or None while there is no value."""
        if not self._kinds:
            return None
        if self._kinds <= _NUMBERS:
            return self._numbers.pin or "mixed"
        if self._kinds == {str}:
            return (None if self._empty_text else self._temporal.pin) or "text"
        return "boolean" if self._kinds == {bool} else "mixed"


class JsonFields:
    """Fields of JSON records: raw columns are lists of what the parser gave, numbers as int or Decimal."""

    def guess(self) -> _JsonGuess:
        """Begin a guess."""
        return _JsonGuess()

    def holds_value(self, column: Sequence[Any]) -> bool:
        """Say whether there is any value in a raw column."""
        return any(value is not None for value in column)

    def fit(self, column: Sequence[Any], pin: str, explicit: bool) -> tuple[pa.Array, Mask | None]:
        """Type a raw column; the mask marks what does not fit.

        With `explicit` (a type that a person asked for) strings are read as numbers too, and numbers
        are taken as text by their digits.
        """
        if pin == "mixed":
            return mixed_column([_settled(value) for value in column])
        data_type = arrow_type_of(pin)
        wanted = _wanted(data_type, explicit)
        kinds = set(map(type, column)) - {_NULL}
        if kinds <= {int} and int in wanted and pa.types.is_integer(data_type):
            try:
                return pa.array(column, data_type), None
            except (pa.ArrowInvalid, OverflowError):
                pass
        plain = (pa.types.is_string(data_type) and kinds <= {str}) or (
            pa.types.is_boolean(data_type) and kinds <= {bool}
        )
        if plain:
            return pa.array(column, data_type), None
        return _fit_by_text(column, pin, wanted)

    def shown(self, column: Sequence[Any], row: int) -> str:
        """Show one value in a message."""
        value = column[row]
        return shortened(str(value) if type(value) in _NUMBERS else value)


def _wanted(data_type: pa.DataType, explicit: bool) -> set[type]:
    kind = pa.types
    if kind.is_boolean(data_type):
        return {bool, str} if explicit else {bool}
    if kind.is_integer(data_type) or kind.is_floating(data_type) or kind.is_decimal(data_type):
        return {int, Decimal, str} if explicit else {int, Decimal}
    if takes_temporal(data_type) or not explicit:
        return {str}
    return {str, int, Decimal, bool} if kind.is_string(data_type) else {str}


def _fit_by_text(column: Sequence[Any], pin: str, wanted: set[type]) -> tuple[pa.Array, Mask | None]:
    kinds = set(map(type, column)) - {_NULL}
    if kinds == {str} and str in wanted and "" not in column:
        return fit_text(pa.array(column, pa.string()), pin)
    if kinds <= _NUMBERS & wanted:
        return fit_text(
            pa.array([None if value is None else str(value) for value in column], pa.string()), pin
        )
    texts = [_text(value) if type(value) in wanted else None for value in column]
    array, misfit = fit_text(pa.array(texts, pa.string()), pin)
    # In JSON an empty string is a value: it is null in no type.
    strangers = np.array(
        [
            value is not None and (type(value) not in wanted or (value == "" and pin != "text"))
            for value in column
        ],
        np.bool_,
    )
    misfit = strangers if misfit is None else misfit | strangers
    return array, misfit if misfit.any() else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _settled(value: Any) -> Any:
    """Give numbers inside of a value their types: a double where its shortest spelling is the number."""
    if isinstance(value, Decimal):
        double = float(value)
        return double if double - double == 0 and Decimal(repr(double)) == value else value
    if isinstance(value, list):
        return [_settled(item) for item in value]
    if isinstance(value, dict):
        return {name: _settled(item) for name, item in value.items()}
    return value
