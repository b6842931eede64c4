"""Number types of text: which one keeps every value, and whether a value fits one."""

from __future__ import annotations

from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.sources.spelling import SURE_DIGITS, Mask, Spelling, cast_leniently, shortest_mask, spell

__all__ = ["NumberGuess", "fit_number"]

_CONTEXT = Context(prec=400, Emin=-999999, Emax=999999, traps=[Inexact, InvalidOperation])


class NumberGuess:
    """Finds the number type that keeps every text it was shown: integer, unsigned, double, decimal."""

    def __init__(self) -> None:
        self.possible = True
        """False as soon as one text is no number."""
        self._seen = False
        self._whole = self._int64 = self._uint64 = self._double = True
        self._decimal = True
        self._before = 1
        self._after = 0

    def add(self, texts: pa.StringArray) -> None:
        """Look at more texts; none of them null or empty."""
        if not self.possible or not len(texts):
            return
        found = spell(texts)
        if not (found.plain.all() or found.number.all()):
            self.possible = False
            return
        self._seen = True
        self._whole = self._whole and bool(found.whole.all())
        if self._whole:
            self._add_whole(texts, found)
        if self._double:
            unsure = found.exponent | (found.digits > SURE_DIGITS)
            if unsure.any():
                self._double = bool(shortest_mask(_pick(texts, unsure)).all())
        self._measure(texts, found)

    @property
    def pin(self) -> str | None:
        """The pin, or None if no number type keeps every value."""
        if not self._seen or not self.possible:
            return None
        if self._whole and self._int64:
            return "integer"
        if self._whole and self._uint64:
            return "unsigned"
        if self._double:
            return "double"
        if self._decimal and self._before + self._after <= 76:
            return f"decimal({38 if self._before + self._after <= 38 else 76},{self._after})"
        return None

    def _add_whole(self, texts: pa.StringArray, found: Spelling) -> None:
        long = found.digits > 18
        if long.any():
            long_ones = _pick(texts, long)
            self._int64 = self._int64 and _casts(long_ones, pa.int64())
            self._uint64 = self._uint64 and _casts(long_ones, pa.uint64())
        self._uint64 = self._uint64 and not found.negative.any()

    def _measure(self, texts: pa.StringArray, found: Spelling) -> None:
        plain = found.plain
        if plain.any():
            self._after = max(self._after, int(found.scale[plain].max()))
            self._before = max(self._before, int((found.digits - found.scale)[plain].max()))
        # Exponents are rare in files, and their digits can't be counted without working them out.
        for text in _pick(texts, found.exponent).to_pylist() if found.exponent.any() else ():
            before, after = _extent(Decimal(text))
            self._before, self._after = max(self._before, before), max(self._after, after)
        self._decimal = self._before + self._after <= 76


def fit_number(texts: pa.StringArray, data_type: pa.DataType) -> tuple[pa.Array, Mask]:
    """Read texts (none null or empty) as numbers of one type.

    Returns the array, null where a text does not fit, and the mask of those: no number, out of
    range, a fraction in a whole type, more digits than the type keeps.
    """
    found = spell(texts)
    if data_type == pa.float64():
        fits = found.number
        unsure = found.exponent | (found.plain & (found.digits > SURE_DIGITS))
        if unsure.any():
            fits = fits.copy()
            fits[unsure] = shortest_mask(_pick(texts, unsure))
        return _blank(texts, fits).cast(data_type), ~fits
    if pa.types.is_decimal(data_type):
        room = data_type.precision - data_type.scale
        sure = found.plain & (found.scale <= data_type.scale) & (found.digits - found.scale <= room)
    else:
        sure = found.whole
    texts, fits = _respell(texts, found, sure, data_type)
    array, bad = cast_leniently(_blank(texts, fits), data_type)
    if bad:
        fits = fits.copy()
        fits[bad] = False
    return array, ~fits


def _respell(
    texts: pa.StringArray, found: Spelling, sure: Mask, data_type: pa.DataType
) -> tuple[pa.StringArray, Mask]:
    """Write the unusual numbers (`3.0`, `1e3`, `2.500` at scale 2) the way the cast takes them."""
    rows = np.flatnonzero(found.number & ~sure)
    if not len(rows):
        return texts, sure
    scale = data_type.scale if pa.types.is_decimal(data_type) else 0
    precision = data_type.precision if pa.types.is_decimal(data_type) else 20
    written = []
    for text in texts.take(pa.array(rows)).to_pylist():
        written.append(_at_scale(text, scale, precision))
    fits = sure.copy()
    fits[rows] = [text is not None for text in written]
    mask = np.zeros(len(texts), np.bool_)
    mask[rows] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(written, pa.string())), fits


def _at_scale(text: str, scale: int, precision: int) -> str | None:
    try:
        number = Decimal(text)
        if number and number.adjusted() > precision:
            return None
        return format(number.quantize(Decimal(1).scaleb(-scale), context=_CONTEXT), "f")
    except DecimalException:
        return None


def _extent(number: Decimal) -> tuple[int, int]:
    """Count the digits before and after the point, without trailing zeros of the mantissa."""
    _, digits, exponent = number.as_tuple()
    if not number or not isinstance(exponent, int):
        return 1, 0
    zeros = len(digits) - len(str(int("".join(map(str, digits)))).rstrip("0"))
    return max(1, number.adjusted() + 1), max(0, -(exponent + zeros))


def _pick(texts: pa.StringArray, mask: Mask) -> pa.StringArray:
    return texts if mask.all() else texts.filter(pa.array(mask))


def _blank(texts: pa.StringArray, keep: Mask) -> pa.StringArray:
    return texts if keep.all() else pc.if_else(pa.array(keep), texts, pa.scalar(None, pa.string()))


def _casts(texts: pa.StringArray, data_type: pa.DataType) -> bool:
    try:
        texts.cast(data_type)
    except pa.ArrowInvalid:
        return False
    return True
