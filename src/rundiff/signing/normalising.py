"""Normalisers in words: what brings the values of a field to one form before they are signed.

| word | what it fits | what it does |
|---|---|---|
| `round(n)` | numbers | to n digits after the point (before it where n is negative), half to even |
| `quantize(step)` | numbers | to the nearest whole multiple of `step`, half to even |
| `truncate(unit)` | timestamps, times of day, durations | down to the whole day, hour, minute, second, ... |
| `trim` | text | without white space at both ends |
| `casefold` | text | upper and lower case alike, by Unicode's full case folding |
| `unordered` | lists | in any order; lists inside of lists keep theirs |
| `unordered(deep)` | lists | the same at every depth |
| `json` | text that holds JSON | by the value that it spells |
| `module:function` | whatever the function takes | a Python function from an Arrow array to one of the same length |

Words are joined by `|` and applied from left to right. Nothing here looks at values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import msgspec

from rundiff.errors import ConfigurationError

__all__ = ["UNITS", "Function", "Json", "Quantise", "Step", "Text", "Truncate", "Unordered", "parse_chain"]

NormaliserFunction = Callable[[Any], Any]

UNITS: Mapping[str, int] = {
    "day": 86_400 * 10**9,
    "hour": 3_600 * 10**9,
    "minute": 60 * 10**9,
    "second": 10**9,
    "millisecond": 10**6,
    "microsecond": 10**3,
}
"""Nanoseconds of each unit of `truncate`."""
MOST_DIGITS = 22
"""10^22 is the largest power of ten that a double holds exactly."""
_WORDS = "round(n), quantize(step), truncate(unit), trim, casefold, unordered, json, or module:function"
_WORD = re.compile(r"([a-z]+)\s*(?:\(\s*([^()]*?)\s*\))?")
_REFERENCE = re.compile(r"[^\s:|]+:[^\s:|]+")


class Quantise(msgspec.Struct, frozen=True):
    """Numbers become the nearest whole multiple of a step, half to even."""

    text: str
    step: Fraction
    takes = "numbers"


class Truncate(msgspec.Struct, frozen=True):
    """Points in time, times of day and durations are cut down to a whole unit, of UTC."""

    text: str
    nanoseconds: int
    takes = "timestamps, times of day and durations"


class Text(msgspec.Struct, frozen=True):
    """`trim` or `casefold`."""

    text: str
    takes = "text"


class Unordered(msgspec.Struct, frozen=True):
    """The items of lists are put in the order of their encodings."""

    text: str
    deep: bool
    takes = "lists"


class Json(msgspec.Struct, frozen=True):
    """Text becomes the JSON value that it spells."""

    text: str = "json"
    takes = "text that holds JSON"


class Function(msgspec.Struct, frozen=True):
    """A Python function over Arrow arrays."""

    text: str
    """`module:name`, by which it is known from run to run."""
    call: NormaliserFunction
    takes = "whatever the function takes"


Step = Quantise | Truncate | Text | Unordered | Json | Function


def parse_chain(
    given: str | NormaliserFunction | Sequence[str | NormaliserFunction],
    label: str,
    find: Callable[[str], NormaliserFunction],
) -> tuple[Step, ...]:
    """Read the normalisers of one field: words, a Python function, or a list of these.

    `label` names the field in messages; `find` gives the function that `module:function` names. Raises
    `ConfigurationError` where a word means nothing.
    """
    parts = [given] if isinstance(given, str) or callable(given) else given
    if not isinstance(parts, Sequence):
        raise ConfigurationError(
            f"{label} must be text such as {_WORDS}, a Python function, or a list of these"
        )
    steps: list[Step] = []
    for part in parts:
        if callable(part):
            steps.append(Function(_name_of(part), part))
        elif isinstance(part, str):
            steps += [_step(word.strip(), label, find) for word in part.split("|")]
        else:
            raise ConfigurationError(f"{label} must hold texts and Python functions only")
    if not steps:
        raise ConfigurationError(f"{label} names no normaliser; use {_WORDS}")
    return tuple(steps)


def _name_of(function: Any) -> str:
    """Name a function as `module:function` would; without spaces or bars, which part words."""
    owner = function if hasattr(function, "__qualname__") else type(function)
    return re.sub(r"[\s|]", "_", f"{owner.__module__}:{owner.__qualname__}")


def _step(word: str, label: str, find: Callable[[str], NormaliserFunction]) -> Step:
    if _REFERENCE.fullmatch(word):
        return Function(word, find(word))
    match = _WORD.fullmatch(word)
    name, argument = match.groups() if match else ("", None)
    if name == "round":
        return _round(argument, label)
    if name == "quantize":
        return _quantise(argument, label)
    if name == "truncate":
        if argument is None or argument not in UNITS:
            raise ConfigurationError(f"{label}: truncate takes {', '.join(UNITS)}, as in truncate(second)")
        return Truncate(f"truncate({argument})", UNITS[argument])
    if name == "unordered" and argument in (None, "deep"):
        return Unordered("unordered(deep)" if argument else "unordered", argument is not None)
    if name in ("trim", "casefold") and argument is None:
        return Text(name)
    if name == "json" and argument is None:
        return Json()
    raise ConfigurationError(f"{label}: {word!r} is no normaliser; known are {_WORDS}")


def _round(argument: str | None, label: str) -> Quantise:
    if argument is None or not re.fullmatch(r"[+-]?\d{1,3}", argument) or abs(int(argument)) > MOST_DIGITS:
        raise ConfigurationError(
            f"{label}: round takes a number of digits from -{MOST_DIGITS} to {MOST_DIGITS}, as in round(4)"
        )
    digits = int(argument)
    return Quantise(f"round({digits})", Fraction(10) ** -digits)


def _quantise(argument: str | None, label: str) -> Quantise:
    plain = argument is not None and re.fullmatch(r"\d{1,15}(?:\.\d{1,15})?|\.\d{1,15}", argument)
    step = Fraction(argument) if plain and argument is not None else Fraction(0)
    if step == 0 or max(step.numerator, step.denominator) > 10**15:
        raise ConfigurationError(
            f"{label}: quantize takes a step above 0 of at most 15 digits, as in quantize(0.05)"
        )
    return Quantise(f"quantize({_decimal_text(step)})", step)


def _decimal_text(step: Fraction) -> str:
    """Spell a step in one way, whichever way it was written: 0.05 for .050."""
    digits = 0
    while (step * 10**digits).denominator > 1:
        digits += 1
    whole = f"{int(step * 10**digits):0{digits + 1}d}"
    return f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole
