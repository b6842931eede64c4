"""Values of records in words: for people, for JSON, and safe to print on a terminal."""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["amount", "jsonable", "key_shown", "plural", "printable", "shown"]

EXACT_INTEGER = 2**53
"""JSON readers keep integers up to here; larger ones travel as text."""
LONGEST_SHOWN = 80
"""Characters of one value that people get to see before it is cut."""

_PLAIN = Decimal | datetime | date | time | timedelta | UUID

_UNSAFE = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Unicode categories that could move a cursor, turn writing round, or break a line."""


def printable(text: str) -> str:
    """Escape control and format characters, so that no value can play with the terminal."""
    if text.isprintable():
        return text
    return "".join(
        (" " if char in "\r\n\t" else char.encode("unicode_escape").decode("ascii"))
        if unicodedata.category(char) in _UNSAFE
        else char
        for char in text
    )


def jsonable(value: Any) -> Any:  # noqa: PLR0911 - one return for each type
    """Give a value as the change stream would.

    Decimals and integers beyond 2^53 become text, times ISO 8601, binary base64, numbers that JSON
    lacks null.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -EXACT_INTEGER <= value <= EXACT_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [jsonable(item) for item in value]
    return str(value)


def _duration(value: timedelta) -> str:
    """Write a duration in ISO 8601, in seconds."""
    micros = round(value / timedelta(microseconds=1))
    whole, rest = divmod(abs(micros), 1_000_000)
    fraction = f".{rest:06}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}PT{whole}{fraction}S"


def shown(value: Any, longest: int = LONGEST_SHOWN) -> str:
    """Show a value to people: text in quotes, null as null, all on one line, cut where it is long."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = f"0x{bytes(value).hex()}"
    elif isinstance(value, int | float | _PLAIN) and not isinstance(value, bool):
        text = str(value)
    else:
        text = json.dumps(jsonable(value), ensure_ascii=False)
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def key_shown(key: Mapping[str, Any]) -> str:
    """Show a primary key: `id=3, region="EU"`."""
    return ", ".join(f"{printable(name)}={shown(value)}" for name, value in key.items())


def amount(number: int) -> str:
    """Write a count with its thousands apart: 1,234."""
    return f"{number:,}"


def plural(number: int, noun: str, rest: str = "") -> str:
    """Write a count with its noun and what follows it: 1 record, 2 records without a key."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}{' ' if rest else ''}{rest}"
