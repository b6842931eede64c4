"""What a run of a part may leave to a database: conditions that never leave out a record which the run covers.

A condition is only given for a column and values for which the database's comparison is that of signatures, or
coarser: what it lets through besides counts as read, as of any source. Everything else is not restricted.

- Partitions: whole numbers, decimals, booleans, dates and texts, by equality. Texts that a collation takes for
  equal come along.
- The cursor: from its highest value on, that value included, and the records that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pyarrow as pa

from rundiff.sources.contract import ReadRequest
from rundiff.sources.pins import arrow_type_of, canonical_pin

__all__ = ["Among", "Condition", "From", "conditions", "where"]

_MOST_VALUES = 1_000
"""More partitions than these are not spelled out."""
_MOST_BITS = 63


class Among(msgspec.Struct, frozen=True):
    """The field has one of these values, all of one type."""

    field: str
    values: tuple[Any, ...]
    orders_texts: ClassVar[bool] = False


class From(msgspec.Struct, frozen=True):
    """The field has this value or a greater one, or is null."""

    field: str
    least: Any

    @property
    def orders_texts(self) -> bool:
        """Whether the order of texts matters, which is another in many a collation."""
        return isinstance(self.least, str)


Condition = Among | From


def conditions(request: ReadRequest, pins: Mapping[str, str], *, ascii_only: bool = False) -> list[Condition]:
    """Give what the database may select by; none of it for a run that wants all records.

    `pins` are the pinned types of those columns whose comparison the database is trusted with: `integer`,
    `decimal(p,s)`, `boolean`, `date`, `text`; for the cursor also `timestamp` and `timestamp with time zone`.
    With `ascii_only`, texts of other characters are left out: a server may not be able to compare them.
    """
    if request.whole:
        return []
    known = {**(request.pins or {}), **request.options.types}
    trusted = {name: pin for name, pin in pins.items() if canonical_pin(known.get(name, pin)) == pin}
    found: list[Condition] = []
    for name in request.partitions[0] if request.partitions else ():
        among = _among(name, [values.get(name) for values in request.partitions], trusted.get(name))
        if among is not None:
            found.append(among)
    pin = trusted.get(request.cursor_field or "", "boolean")
    if request.cursor_field is not None and pin != "boolean" and _is_of(request.cursor, pin):
        found.append(From(request.cursor_field, request.cursor))
    return [one for one in found if not (ascii_only and _beyond_ascii(one))]


def where(
    found: Sequence[Condition],
    quoted: Callable[[str], str],
    told: Callable[[Any], str],
    no_date: str = "",
) -> str:
    """Spell conditions as a WHERE clause, with a blank before it; nothing without any.

    `told` spells a value, or keeps it to be bound and gives its placeholder; it is called from left to right.
    `no_date` is a further condition (template) for dates that stand for none.
    """
    parts = []
    for one in found:
        name = quoted(one.field)
        if isinstance(one, Among):
            parts.append(f"{name} IN ({', '.join(told(value) for value in one.values)})")
        else:
            least = f"{name} >= {told(one.least)} OR {name} IS NULL"
            if no_date and isinstance(one.least, date):
                least += " OR " + no_date.format(name=name)
            parts.append(f"({least})")
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _among(name: str, values: Sequence[Any], pin: str | None) -> Among | None:
    """Give the values of a partition's field as the field's type; None where one of them has no equal there."""
    if pin is None or pin.startswith("timestamp"):
        return None
    taken = []
    for value in values:
        typed = value
        if isinstance(value, str) and pin != "text":
            try:
                typed = pa.scalar(value).cast(arrow_type_of(pin)).as_py()  # as the engine reads it
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return None
        if not _is_of(typed, pin):
            return None
        taken.append(typed)
    distinct = tuple(dict.fromkeys(taken))
    return Among(name, distinct) if len(distinct) <= _MOST_VALUES else None


def _is_of(value: Any, pin: str) -> bool:
    """Say whether a value is exactly of a pinned type."""
    kind = type(value)
    if pin == "integer":
        return kind is int and int(value).bit_length() <= _MOST_BITS
    if pin.startswith("decimal"):
        return (kind is int and int(value).bit_length() <= _MOST_BITS) or (
            kind is Decimal and value.is_finite()
        )
    if pin == "text":
        # Trailing blanks, NUL and halves of surrogates mean different things to different servers.
        return kind is str and value == value.rstrip() and "\0" not in value and _encodes(value)
    if pin.startswith("timestamp"):
        return kind is datetime and (value.tzinfo is not None) == pin.endswith("zone")
    return kind is {"boolean": bool, "date": date}.get(pin)


def _beyond_ascii(condition: Condition) -> bool:
    values = [condition.least] if isinstance(condition, From) else condition.values
    return any(isinstance(value, str) and not value.isascii() for value in values)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
