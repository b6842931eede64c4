"""ISO 8601 dates, times and date-times in text; nothing else counts as one.

| written | pin |
|---|---|
| `2024-02-29` | `date` |
| `2024-02-29T12:30`, `2024-02-29 12:30:59.25` | `timestamp` |
| the same with `Z`, `+02`, `+0200` or `+02:00` | `timestamp with time zone` |
| `12:30`, `12:30:59.25` | `time` |

Years run from 0001 to 9999. More than six digits of a second make the pin one of nanoseconds.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.sources.pins import arrow_type_of
from rundiff.sources.spelling import Mask, cast_leniently

__all__ = ["TemporalGuess", "fit_temporal", "takes_temporal"]

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
_ZONE = r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"
_FORMS = {
    "date": f"^{_DATE}$",
    "timestamp": f"^{_DATE}[T ]{_CLOCK}$",
    "timestamp with time zone": f"^{_DATE}[T ]{_CLOCK}{_ZONE}$",
    "time": f"^{_CLOCK}$",
}
_FINE = r"\.[0-9]{6}[0-9]*[1-9]"
_EPOCH = "1970-01-01T"
_FIRST_FINE_YEAR, _LAST_FINE_YEAR = "1678", "2262"
"""Nanoseconds in 64 bits reach from 1677-09-21 to 2262-04-11; whole years keep the test simple."""


class TemporalGuess:
    """Finds out whether all texts it was shown are dates, times or date-times of one form."""

    def __init__(self) -> None:
        self.possible = True
        """False as soon as one text breaks the form of the others."""
        self._form: str | None = None
        self._fine = False
        self._wide = False

    def add(self, texts: pa.StringArray) -> None:
        """Look at more texts; none of them null or empty."""
        if not self.possible or not len(texts):
            return
        if self._form is None:
            first = texts.slice(0, 1)
            self._form = next((form for form, shape in _FORMS.items() if _all_match(first, shape)), None)
        self.possible = self._form is not None and self._holds(texts)

    @property
    def pin(self) -> str | None:
        """The pin, or None if the texts are not all of one form."""
        if not self.possible or self._form is None:
            return None
        if not self._fine:
            return self._form
        word, _, rest = self._form.partition(" ")
        return f"{word}(ns){' ' if rest else ''}{rest}"

    def _holds(self, texts: pa.StringArray) -> bool:
        if self._form != "date" and not self._fine:
            self._fine = bool(pc.any(pc.match_substring_regex(texts, _FINE)).as_py())
        if self._form in {"timestamp", "timestamp with time zone"}:
            span = pc.min_max(texts).as_py()
            self._wide = self._wide or span["min"] < _FIRST_FINE_YEAR or span["max"] > _LAST_FINE_YEAR
        if self._fine and self._wide:
            return False
        pin = self.pin
        if pin is None:
            return False
        return not bool(fit_temporal(texts, arrow_type_of(pin))[1].any())


def takes_temporal(data_type: pa.DataType) -> bool:
    """Say whether a type is one that `fit_temporal` reads."""
    kind = pa.types
    return bool(kind.is_date(data_type) or kind.is_time(data_type) or kind.is_timestamp(data_type))


def fit_temporal(texts: pa.StringArray, data_type: pa.DataType) -> tuple[pa.Array, Mask]:
    """Read texts (none null or empty) as dates, times or timestamps.

    Returns the array, null where a text does not fit, and the mask of those: another form, no such
    day, finer than the type's unit, out of its range.
    """
    fits = _matches(texts, _FORMS[_form_of(data_type)])
    if pa.types.is_time(data_type):
        fits &= ~_starts_with(texts, "24")
        dated = pc.binary_join_element_wise(_EPOCH, texts, "")
        moments, bad = cast_leniently(_blank(dated, fits), pa.timestamp("ns"))
        array, lossy = cast_leniently(moments, data_type)
    else:
        fits &= ~_starts_with(texts, "0000")
        array, bad = cast_leniently(_coarse(_blank(texts, fits), data_type), data_type)
        lossy = []
    if bad or lossy:
        fits[[*bad, *lossy]] = False
    return array, ~fits


def _form_of(data_type: pa.DataType) -> str:
    if pa.types.is_date(data_type):
        return "date"
    if pa.types.is_time(data_type):
        return "time"
    return "timestamp with time zone" if data_type.tz else "timestamp"


def _coarse(texts: pa.StringArray, data_type: pa.DataType) -> pa.StringArray:
    """Drop zeros that end a fraction where Arrow would refuse its length."""
    if pa.types.is_date(data_type) or data_type.unit == "ns":
        return texts
    digits = {"s": 0, "ms": 3, "us": 6}[data_type.unit]
    shape = rf"(\.[0-9]{{{digits}}})0+" if digits else r"(\.)0+"
    longer = pc.match_substring_regex(texts, rf"\.[0-9]{{{digits + 1},}}")
    if not pc.any(longer).as_py():
        return texts
    shorter = pc.replace_substring_regex(texts, shape + r"(Z|[+-]|$)", r"\1\2" if digits else r"\2")
    return pc.if_else(longer, shorter, texts)


def _matches(texts: pa.StringArray, shape: str) -> Mask:
    mask: Mask = pc.match_substring_regex(texts, shape).to_numpy(zero_copy_only=False).copy()
    return mask


def _all_match(texts: pa.StringArray, shape: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, shape)).as_py())


def _starts_with(texts: pa.StringArray, prefix: str) -> Mask:
    mask: Mask = pc.starts_with(texts, prefix).to_numpy(zero_copy_only=False)
    return mask


def _blank(texts: pa.StringArray, keep: Mask) -> pa.StringArray:
    if bool(np.all(keep)):
        return texts
    return pc.if_else(pa.array(keep), texts, pa.scalar(None, pa.string()))
