"""JSON text (RFC 8259) to the encodings of the values that it spells, a batch at a time.

`rundiff.signing.normalised.encoded_json` says what the encoding of one text is, and which texts are no JSON. It
takes some tens of microseconds for each; so here texts are parsed by `msgspec`, which takes no text that it
refuses and gives the same values, and what they hold is put into Arrow columns and encoded there. A few texts that
can't go that way (names that occur twice, numbers beyond Arrow's types, deep nesting) go one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.signing import mixed
from rundiff.signing import normalised as scalar
from rundiff.signing.arrow import encode_values
from rundiff.signing.reference import encode as encode_value

__all__ = ["encode_texts"]

CHUNK = 1 << 13
"""Texts whose values are in memory as Python objects at a time."""
FEW = 16
"""So few texts of a chunk that can't go the fast way as a whole are taken one by one."""
DEEPEST = 64
"""Deeper nesting goes one by one, where Python's own limit decides."""
WIDEST = 38
"""Digits of the decimals that Arrow reads from text."""
_ESCAPED_COLON = "\\u003"


class _Spelled(str):
    """A number with a fraction or an exponent, as it is written: Python's floats would not keep every one."""

    __slots__ = ()


class _Slow(Exception):
    """Some of the texts at hand have to be taken one by one."""


def encode_texts(texts: Iterable[bytes]) -> list[bytes]:
    """Encode what each text spells; a text that is no JSON is encoded as binary, which JSON has none of."""
    given = list(texts)
    result: list[bytes] = []
    for start in range(0, len(given), CHUNK):
        result += _encoded(given[start : start + CHUNK])
    return result


def _encoded(texts: Sequence[bytes]) -> list[bytes]:
    result: list[bytes] = [b""] * len(texts)
    places, values, colons = [], [], []
    decode = msgspec.json.Decoder(float_hook=_Spelled).decode
    for place, text in enumerate(texts):
        try:
            spelled = text.decode()
            if _ESCAPED_COLON in spelled:
                raise _Slow
            values.append(decode(spelled))
        except (_Slow, ValueError, ArithmeticError, RecursionError):
            result[place] = _one(text)
        else:
            places.append(place)
            colons.append(spelled.count(":"))
    for place, encoding in zip(places, _together(values, colons, lambda at: texts[places[at]]), strict=True):
        result[place] = encoding
    return result


def _one(text: bytes) -> bytes:
    try:
        return scalar.encoded_json(text.decode())
    except (ValueError, ArithmeticError, RecursionError):
        return encode_value(text)


def _together(
    values: Sequence[Any], colons: Sequence[int], text: Callable[[int], bytes], first: int = 0
) -> list[bytes]:
    """Encode values at once; where that can't be, each half by itself, until they are few.

    A name that occurs twice in an object is seen by the colons of the texts: each stands behind a name or inside
    of a string. The parser has kept one of the two members, so that what it gave explains fewer.
    """
    if not values:
        return []
    columns = _Columns()
    try:
        array = columns.array_of(values, 0)
        if columns.colons == sum(colons):
            encodings: list[bytes] = encode_values(array).to_pylist()
            return encodings
    except (_Slow, pa.ArrowException, ArithmeticError, UnicodeError):
        pass
    if len(values) <= FEW:
        return [_one(text(first + at)) for at in range(len(values))]
    half = len(values) // 2
    return [
        *_together(values[:half], colons[:half], text, first),
        *_together(values[half:], colons[half:], text, first + half),
    ]


class _Columns:
    """Puts values into Arrow arrays that are encoded like them, and counts the colons that they explain."""

    def __init__(self) -> None:
        self.colons = 0

    def array_of(self, values: Sequence[Any], depth: int) -> pa.Array:
        """Give values of one kind as a column; others as one of the encodings that they have."""
        kinds = set(map(type, values)) - {type(None)}
        if depth > DEEPEST:
            raise _Slow
        if not kinds:
            return pa.nulls(len(values))
        if kinds == {str}:
            array = pa.array(values, pa.large_string())
            self.colons += pc.sum(pc.count_substring(array, ":")).as_py() or 0
            return array
        if kinds == {dict}:
            return self._objects(values, depth)
        if kinds == {list}:
            return self._lists(values, depth)
        if kinds == {int}:
            return pa.array(values, pa.int64())
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
        if kinds <= {int, _Spelled}:
            return _numbers([str(value) if type(value) is int else value for value in values])
        self.colons += sum(map(_colons, values))
        return mixed.encode(map(_exact, values))

    def _objects(self, values: Sequence[dict[str, Any] | None], depth: int) -> pa.Array:
        objects = [value for value in values if value is not None]
        self.colons += sum(map(len, objects))
        names = list(dict.fromkeys(chain.from_iterable(objects)))
        if not names:
            return pa.array(values, pa.struct([]))
        # Most objects are members of others, and few of those lack any.
        nothing: dict[str, Any] = {}
        whole = [nothing if value is None else value for value in values]
        children = []
        for name in names:
            if ":" in name:
                self.colons += name.count(":") * sum(name in value for value in objects)
            children.append(self.array_of([value.get(name) for value in whole], depth + 1))
        mask = None if len(objects) == len(values) else pa.array([value is None for value in values])
        return pa.StructArray.from_arrays(children, names, mask=mask)

    def _lists(self, values: Sequence[list[Any] | None], depth: int) -> pa.Array:
        lists = [[] if value is None else value for value in values]
        offsets = np.concatenate(([0], np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)))))
        items = self.array_of(list(chain.from_iterable(lists)), depth + 1)
        mask = pa.array([value is None for value in values])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items, mask=mask)


def _numbers(spelled: Sequence[str | None]) -> pa.Array:
    """Give numbers, by their spelling, as decimals that hold all of them exactly."""
    texts = pa.array(spelled, pa.string())
    length = pc.binary_length(texts)
    point = pc.find_substring(texts, ".")
    point = pc.if_else(pc.less(point, 0), length, point)
    before, after = (pc.max(part).as_py() for part in (point, pc.subtract(length, point)))
    # Behind the point, which is counted. Of more digits than it has room for, Arrow's cast loses some.
    scale = max(after - 1, 0)
    if before + scale <= WIDEST and not pc.any(pc.match_substring_regex(texts, "[eE]")).as_py():
        return texts.cast(pa.decimal128(WIDEST, scale))
    return pa.array([None if text is None else Decimal(text) for text in spelled])


def _exact(value: Any) -> Any:
    """Put decimals in the place of spelled numbers."""
    if isinstance(value, _Spelled):
        return Decimal(value)
    if isinstance(value, dict):
        return {name: _exact(item) for name, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


def _colons(value: Any) -> int:
    """Count the colons that a value explains: one behind each name, and those inside of texts."""
    if isinstance(value, str):
        return value.count(":")
    if isinstance(value, dict):
        return sum(1 + name.count(":") + _colons(item) for name, item in value.items())
    return sum(map(_colons, value)) if isinstance(value, list) else 0
