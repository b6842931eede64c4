"""Normalisers over single Python values: for columns of mixed types and for JSON, which have no Arrow type.

They agree with the array functions of `rundiff.signing.normalisers` on every value. Values that a
normaliser does not fit stay as they are, since a column of mixed types may hold anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import cbor2

from rundiff.signing import reference
from rundiff.signing.normalising import Quantise, Step, Text, Truncate, Unordered
from rundiff.signing.paths import ITEMS, Parts, Selection, inner_paths
from rundiff.signing.values import Duration, Timestamp

__all__ = ["at_path", "encoded_json", "normalised", "quantised", "selected"]

_EXACT = Context(prec=400, traps=[InvalidOperation])
_FARTHEST = 150
"""Decimals with more digits before the point than this are whole multiples for all that matters, or stay."""
_LARGEST_STEP = 2.0**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def normalised(value: Any, step: Step) -> Any:
    """Apply one normaliser to a value and all inside of it that it fits; functions take arrays only."""
    match step:
        case Quantise():
            return _inside(value, lambda leaf: quantised(leaf, step))
        case Truncate():
            return _inside(value, lambda leaf: _truncated(leaf, step.nanoseconds))
        case Text():
            return _inside(value, _stripped if step.text == "trim" else _folded)
        case Unordered():
            return _unordered(value, deep=step.deep)
        case _:
            return value


def _inside(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {name: _inside(item, function) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inside(item, function) for item in value]
    return function(value)


def quantised(value: Any, step: Quantise) -> Any:
    """Bring a number to the nearest whole multiple of a step, half to even; anything else stays."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    if isinstance(value, float):
        return _quantised_float(value, step.step)
    if isinstance(value, Decimal) and (not value.is_finite() or abs(value.adjusted()) > _FARTHEST):
        # One that is as small is nothing beside any step.
        return Decimal(0) if value.is_finite() and value.adjusted() < 0 else value
    multiple = Fraction(value) / step.step
    whole = round(multiple) * step.step
    if whole.denominator == 1:
        return int(whole)
    return _EXACT.divide(Decimal(whole.numerator), Decimal(whole.denominator))


def _quantised_float(value: float, step: Fraction) -> float:
    # The same operations in the same order as on arrays.
    up, down = float(step.denominator), float(step.numerator)
    steps = value * up / down
    if not abs(steps) < _LARGEST_STEP:
        return value
    return float(round(steps)) * down / up


def _truncated(value: Any, nanoseconds: int) -> Any:
    if isinstance(value, datetime):
        naive = value.tzinfo is None
        aware = value.replace(tzinfo=UTC) if naive else value.astimezone(UTC)
        microseconds = (aware - _EPOCH) // timedelta(microseconds=1)
        return _EPOCH + timedelta(microseconds=_down(microseconds * 1_000, nanoseconds) // 1_000)
    if isinstance(value, timedelta):
        microseconds = value // timedelta(microseconds=1)
        return timedelta(microseconds=_down(microseconds * 1_000, nanoseconds) // 1_000)
    if isinstance(value, Timestamp | Duration):
        seconds, rest = divmod(_down(value.seconds * 10**9 + value.nanoseconds, nanoseconds), 10**9)
        return type(value)(seconds, rest)
    return value


def _down(number: int, unit: int) -> int:
    return number - number % unit


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _unordered(value: Any, *, deep: bool) -> Any:
    if isinstance(value, dict):
        return {name: _unordered(item, deep=deep) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_unordered(item, deep=True) for item in value] if deep else value
        return sorted(items, key=reference.encode)
    return value


def selected(value: Any, selection: Selection) -> Any:
    """Keep the members of mappings that a selection takes, at any depth."""
    if selection.is_whole:
        return value
    if isinstance(value, dict):
        kept = {name: (item, selection.member(name)) for name, item in value.items()}
        return {name: selected(item, inner) for name, (item, inner) in kept.items() if inner is not None}
    if isinstance(value, list | tuple):
        inner = selection.items
        return [selected(item, inner) for item in value]
    return value if selection.include is None else None


def at_path(value: Any, parts: Parts, function: Callable[[Any], Any]) -> Any:
    """Apply a function to what stands at a path; a value without it stays as it is."""
    if not parts:
        return function(value)
    if isinstance(value, dict):
        found = dict(inner_paths(parts, value))
        return {
            name: at_path(item, found[name], function) if name in found else item
            for name, item in value.items()
        }
    if isinstance(value, list | tuple) and parts[0] == ITEMS:
        return [at_path(item, parts[1:], function) for item in value]
    return value


def encoded_json(text: str) -> bytes:
    """Encode the value that JSON text (RFC 8259) spells, its numbers exactly; raises `ValueError`.

    Refused are names that occur twice in one object, and NaN and infinities, which are no JSON.
    """
    if _LONG_NUMBER.search(text):
        return reference.encode(_EXACT_JSON.decode(text))
    value = _SHORT_JSON.decode(text)
    # Of text keys and small numbers in their shortest form, cbor2 gives the reference's bytes.
    encoded: bytes = cbor2.dumps(value, canonical=True)
    return encoded


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:20]} has too large an exponent") from None


def _short_number(text: str) -> Decimal | int:
    number = Decimal(text).normalize(_EXACT)
    return int(number) if number == number.to_integral_value() else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has a name twice")
    if None in members.values():
        return {name: value for name, value in members.items() if value is not None}
    return members


_LONG_NUMBER = re.compile(r"[0-9][0-9.]{17}|[0-9][eE]")
"""May be a number that does not fit 64 bits, or that is written with an exponent."""
_EXACT_JSON = json.JSONDecoder(parse_float=_number, parse_constant=_no_constant, object_pairs_hook=_object)
_SHORT_JSON = json.JSONDecoder(
    parse_float=_short_number, parse_constant=_no_constant, object_pairs_hook=_object
)
