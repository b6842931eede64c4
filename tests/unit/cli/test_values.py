"""Values in words and in JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from rundiff.cli.values import jsonable, key_shown, plural, printable, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**53, 2**53),
        (2**53 + 1, "9007199254740993"),
        (-(2**53) - 1, "-9007199254740993"),
        (1.5, 1.5),
        (float("nan"), None),
        (float("-inf"), None),
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02T03:04:05.000006+00:00"),
        (time(3, 4), "03:04:00"),
        (timedelta(days=1, microseconds=500_000), "PT86400.5S"),
        (timedelta(microseconds=-1), "-PT0.000001S"),
        (timedelta(0), "PT0S"),
        (b"\x00\xff", "AP8="),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": [Decimal(1), {"b": b""}]}, {"a": ["1", {"b": ""}]}),
        (("a", "b"), ["a", "b"]),
    ],
)
def test_jsonable(value: Any, expected: Any) -> None:
    assert jsonable(value) == expected
    assert json.loads(json.dumps(jsonable(value))) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        ("", '""'),
        ('say "hi"', r'"say \"hi\""'),
        ("Zoë 東京", '"Zoë 東京"'),
        (3, "3"),
        (2**60, str(2**60)),
        (float("nan"), "nan"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 2), "2026-01-02"),
        (b"\x00\xff", "0x00ff"),
        ({"a": 1}, '{"a": 1}'),
        ([1, None], "[1, null]"),
    ],
)
def test_shown(value: Any, expected: str) -> None:
    assert shown(value) == expected


def test_long_values_are_cut() -> None:
    assert shown("x" * 500) == '"' + "x" * 78 + "…"


@pytest.mark.parametrize("bad", ["\x1b[31mred", "\x9b31m", "\u202egnp", "a\x00b", "\u2028", "\x7f"])
def test_no_value_plays_with_the_terminal(bad: str) -> None:
    for text in (printable(bad), shown(bad), key_shown({bad: bad})):
        assert text.isprintable()


def test_words() -> None:
    assert printable("two\nlines") == "two lines"
    assert key_shown({"id": 3, "region": "EU"}) == 'id=3, region="EU"'
    assert (plural(1, "record"), plural(1234, "record")) == ("1 record", "1,234 records")
