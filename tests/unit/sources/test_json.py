from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundiff.errors import SourceError
from rundiff.sources import jsonlines
from rundiff.sources.contract import ReadRequest
from rundiff.sources.jsonlines import _element_ends
from tests.unit.sources.reads import Outcome, read_all


def read_json(
    tmp_path: Path, data: bytes, name: str = "a.json", request: ReadRequest | None = None
) -> Outcome:
    path = tmp_path / name
    path.write_bytes(data)
    return read_all(path, request or ReadRequest())


@pytest.mark.parametrize(
    "data", [b'{"a": 1}', b'{"a": 1}\n{"a": 2}\n', b'[{"a": 1}]', b" \n[]\n", b'\xef\xbb\xbf[{"a":1}]']
)
def test_both_forms_are_told_apart(data: bytes, tmp_path: Path) -> None:
    outcome = read_json(tmp_path, data)
    assert len(outcome.records) == data.count(b"a")
    assert outcome.unreadable == []


@pytest.mark.parametrize("data", [b'{\n "a": 1\n}', b'"x"', b"5", b"  ", b'{"rows":\n[]}'])
def test_other_documents_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected|empty"):
        read_json(tmp_path, data)


@pytest.mark.parametrize("data", [b'[{"a": 1}', b'[{"a": 1},', b"[", b'[{"a": "]', b"[{}] {}", b"[{}][]"])
def test_arrays_end_where_the_file_does(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cut short|goes on"):
        read_json(tmp_path, data)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_deep_nesting_is_unreadable(opening: bytes, name: str, tmp_path: Path) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    for depth in (90, 600, 100_000):
        deep = b'{"x":' + opening * depth + b"1" + closing * depth + b"}"
        good = b'{"x":1}'
        data = (
            b"[" + good + b"," + deep + b"," + good + b"]"
            if name == "a.json"
            else b"\n".join([good, deep, good, b""])
        )
        outcome = read_json(tmp_path, data, name, ReadRequest(pins={"x": "mixed"}))
        assert len(outcome.records) + len(outcome.unreadable) == 3
        assert len(outcome.unreadable) == (depth > 100)


def test_cut_last_line_is_unreadable(tmp_path: Path) -> None:
    outcome = read_json(tmp_path, b'{"id": 1}\n{"id": 2', "a.jsonl")
    assert outcome.unreadable == [("a.jsonl, line 2", None)]
    usual = ReadRequest(ended_with_newline=True)
    whole = read_json(tmp_path, b'{"id": 1}\n{"id": 2}', "a.jsonl", usual)
    assert whole.unreadable == [("a.jsonl, line 2", None)]
    assert whole.incomplete


def test_pins_hold_for_json_types(tmp_path: Path) -> None:
    pins = {"id": "integer", "name": "text", "day": "date", "any": "mixed"}
    data = b'{"id": 1.0, "name": "1", "day": "2024-01-01", "any": [1]}\n'
    data += b'{"id": "1"}\n{"name": 1}\n{"day": ""}\n{"id": true}\n'
    outcome = read_json(tmp_path, data, "a.jsonl", ReadRequest(pins=pins))
    assert [record["id"] for record in outcome.records] == [1]
    assert outcome.unreadable == [
        ("a.jsonl, line 2", "id"),
        ("a.jsonl, line 5", "id"),
        ("a.jsonl, line 3", "name"),
        ("a.jsonl, line 4", "day"),
    ]


def test_asked_types_read_numbers_as_text_and_text_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"zip": 94103, "amount": "1.50"}\n')
    outcome = read_all(tmp_path / "a.jsonl", types={"zip": "text", "amount": "double"})
    assert outcome.records == [{"zip": "94103", "amount": 1.5}]


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=5,
)
RECORDS = st.lists(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), VALUES, max_size=3), max_size=6
)


@given(
    RECORDS,
    st.sampled_from(["a.json", "a.jsonl"]),
    st.sampled_from([1, 16, 1 << 20]),
    st.sampled_from([None, 1]),
)
def test_what_json_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    name: str,
    size: int,
    indent: int | None,
) -> None:
    path = tmp_path_factory.mktemp("json") / name
    if name == "a.json":
        path.write_text(json.dumps(rows, indent=indent))
    else:
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) or "\n{}\n", newline="\n"
        )
        rows = rows or [{}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonlines, "_CHUNK_BYTES", size)
        outcome = read_all(path, types={field: "mixed" for row in rows for field in row})
    assert outcome.unreadable == []
    assert [without_nulls(record) for record in outcome.records] == [without_nulls(row) for row in rows]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, Decimal):
        return value
    # Whole numbers beyond 64 bits come as decimals, and must not be rounded on the way to a comparison.
    return int(value) if value == value.to_integral_value() else float(value)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_elements_are_cut_where_they_end(values: list[Any]) -> None:
    texts = [json.dumps(value) for value in values]
    commas, close = _element_ends((",".join(texts) + "]").encode())
    ends = [sum(map(len, texts[: place + 1])) + place for place in range(len(texts))]
    assert [*commas, close] == ends
