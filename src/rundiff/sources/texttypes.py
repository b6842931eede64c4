"""Types of text fields: the guess at the first run, and the fit of later values.

A type is taken only if it keeps every value: boolean (`true` and `false`, exactly), integer, double,
decimal, ISO dates and times, else text. An empty quoted text is null in every type but text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.errors import ConfigurationError
from rundiff.sources.numbers import NumberGuess, fit_number
from rundiff.sources.pins import arrow_type_of
from rundiff.sources.spelling import Mask
from rundiff.sources.temporal import TemporalGuess, fit_temporal, takes_temporal

__all__ = ["TextGuess", "fit_text", "shortened"]

_UUID = r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"
_BOOLEANS = pa.array(["true", "false"])


class TextGuess:
    """Finds the pin that keeps every text of a field, shown batch by batch."""

    def __init__(self) -> None:
        self._numbers = NumberGuess()
        self._temporal = TemporalGuess()
        self._boolean = True
        self._values = False
        self._empties = False

    @property
    def settled(self) -> bool:
        """Say whether the answer is text whatever comes next."""
        return not (self._numbers.possible or self._temporal.possible or self._boolean)

    def add(self, texts: pa.StringArray) -> None:
        """Look at more texts; null is no value."""
        if self.settled:
            return
        present, _ = _present(texts)
        self._empties = self._empties or len(present) < len(texts) - texts.null_count
        if not len(present):
            return
        self._values = True
        self._numbers.add(present)
        self._temporal.add(present)
        self._boolean = self._boolean and bool(pc.all(pc.is_in(present, value_set=_BOOLEANS)).as_py())

    @property
    def pin(self) -> str | None:
        """The pin; None while the field has no value. Empty texts alone make it text."""
        if not self._values:
            return "text" if self._empties else None
        if self._boolean:
            return "boolean"
        return self._numbers.pin or self._temporal.pin or "text"


def fit_text(texts: pa.StringArray, pin: str) -> tuple[pa.Array, Mask | None]:
    """Read a column of texts as its pinned type.

    Returns the array, null where a text does not fit, and the mask of those rows, or None when all
    fit. Raises `ConfigurationError` for a type that text can't be read as.
    """
    data_type = arrow_type_of(pin)
    if data_type == texts.type:
        return texts, None
    present, rows = _present(texts)
    array, misfit = _fit_present(present, data_type, pin)
    if rows is None:
        return array, misfit if misfit.any() else None
    # Back to the rows they came from; an index of null gives a null.
    places = np.full(len(texts), -1, np.int64)
    places[rows] = np.arange(len(rows))
    spread = array.take(pa.array(places, mask=places < 0))
    if not misfit.any():
        return spread, None
    mask = np.zeros(len(texts), np.bool_)
    mask[rows[misfit]] = True
    return spread, mask


def shortened(value: object, limit: int = 40) -> str:
    """Show a value in a message, cut to `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    length, text = len(text), _printable(text[: limit + 1])
    return f"'{text}'" if length <= limit else f"'{text[:limit]}…' ({length} characters)"


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _fit_present(texts: pa.StringArray, data_type: pa.DataType, pin: str) -> tuple[pa.Array, Mask]:
    kind = pa.types
    if kind.is_integer(data_type) or kind.is_floating(data_type) or kind.is_decimal(data_type):
        return fit_number(texts, data_type)
    if takes_temporal(data_type):
        return fit_temporal(texts, data_type)
    if kind.is_boolean(data_type):
        known: Mask = pc.is_in(texts, value_set=_BOOLEANS).to_numpy(zero_copy_only=False)
        return pc.equal(texts, "true"), ~known
    if kind.is_binary(data_type):
        return texts.cast(data_type), np.zeros(len(texts), np.bool_)
    if data_type == pa.json_():
        return pa.ExtensionArray.from_storage(data_type, texts), np.zeros(len(texts), np.bool_)
    if data_type == pa.uuid():
        return _fit_uuid(texts)
    raise ConfigurationError(f"A text field can't be read as `{pin}`; take another type in --types.")


def _fit_uuid(texts: pa.StringArray) -> tuple[pa.Array, Mask]:
    known: Mask = pc.match_substring_regex(texts, _UUID).to_numpy(zero_copy_only=False)
    # Arrow reads no hexadecimal digits; uuid columns of text come by --types only.
    values = [
        bytes.fromhex(text.replace("-", "")) if fits else None
        for text, fits in zip(texts.to_pylist(), known, strict=True)
    ]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16))), ~known


def _present(texts: pa.StringArray) -> tuple[pa.StringArray, np.ndarray | None]:
    """Give the texts that are neither null nor empty, and their rows if they are not all."""
    keep = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
    if pc.all(keep).as_py() is not False:
        return texts, None
    return texts.filter(keep), np.flatnonzero(keep.to_numpy(zero_copy_only=False))
