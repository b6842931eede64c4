"""What `docs/signatures.md` says, run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rundiff.signing import signature
from rundiff.signing.reference import encode
from rundiff.signing.signable import KNOWN_EXTENSIONS

PAGE = (Path(__file__).parents[3] / "docs" / "signatures.md").read_text()
USAGE, PORTABLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

RECORDS: list[dict[str, Any]] = [
    {},
    {"id": 1, "name": "Ada"},
    {"id": -1, "on": True, "off": False, "gone": None},
    {"numbers": [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -24, -25, -257, -(2**63)]},
    {"text": "ü" * 200, "nested": {"bb": [None, {}], "a": {"c": None, "d": ""}}},
    {f"field {place}": place for place in range(300)},
]


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_the_portable_signer_agrees(record: dict[str, Any]) -> None:
    names: dict[str, Any] = {}
    exec(PORTABLE, names)  # noqa: S102 - the page of this repository
    assert names["signature"](record, list(record)) == signature(record)


def test_the_encoding_to_check_with_is_right() -> None:
    (shown,) = re.findall(r"the encoding is `([0-9a-f ]+)`", PAGE)
    assert bytes.fromhex(shown) == encode({"id": 1, "name": "Ada"})


def test_the_usage_gives_what_it_shows() -> None:
    (shown,) = re.findall(r"# '([0-9a-f]{64})'", USAGE)
    code = USAGE.replace("import rundiff\n", "").replace("rundiff.signature", "signature")
    assert eval(code.strip().splitlines()[0], {"signature": signature}) == shown  # noqa: S307 - as above


@pytest.mark.parametrize(
    ("same", "one", "other"),
    [
        (True, {"a": None}, {}),
        (False, {"a": {}}, {"a": None}),
        (False, {"a": ""}, {"a": None}),
        (False, {"a": [None]}, {"a": []}),
        (False, {"a": 1}, {"a": True}),
        (False, {"a": "1"}, {"a": 1}),
        (True, {"a": 1.0}, {"a": 1}),
    ],
)
def test_what_follows_is_so(same: bool, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (signature(one) == signature(other)) == same


@pytest.mark.parametrize("extension", sorted(KNOWN_EXTENSIONS - {"arrow.bool8", "arrow.uuid"}))
def test_extensions_are_described(extension: str) -> None:
    assert f"`{extension}`" in PAGE
