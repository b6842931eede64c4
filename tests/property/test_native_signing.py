"""The native signer, Python's signer and the reference agree, over many rows and in any layout."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rundiff.signing import arrow, sign, sign_both
from rundiff.signing.contract import SigningKey
from rundiff.signing.reference import signature
from rundiff.signing.signable import names_survive
from tests.property.signing_arrays import build, kinds, meaning, optional

if os.environ.get("RUNDIFF_REQUIRE_NATIVE") == "1":
    native: Any = importlib.import_module("rundiff._native")
else:
    native = pytest.importorskip("rundiff._native", reason="the native core isn't built here")

LARGE = 2048 * 3
"""Rows of three tasks: what several threads share."""


def relaxed(examples: int) -> settings:
    """Settings for strategies that draw whole arrays."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@st.composite
def columns(draw: Any) -> tuple[pa.Array, list[Any]]:
    """An array of any type, and its values as the reference takes them."""
    kind = draw(kinds)
    raws = draw(st.lists(optional(kind), min_size=1, max_size=6))
    try:
        array = build(draw, kind, raws)
    except pa.ArrowInvalid:
        # pyarrow refuses to run-end encode some values that other arrays may hold.
        return pa.nulls(len(raws)), [None] * len(raws)
    return array, [meaning(kind, raw) for raw in raws]


def repeated(array: pa.Array, times: int) -> pa.Array:
    """Rows again and again; run-end encoded arrays inside nested ones can't be concatenated."""
    try:
        return pa.concat_arrays([array] * times)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.nulls(len(array) * times)


@relaxed(250)
@given(made=columns(), key=st.sampled_from([None, b"sixteen bytes or more"]))
def test_both_signatures_in_one_pass_are_those_of_two(made: Any, key: bytes | None) -> None:
    array, values = made
    batch = pa.RecordBatch.from_arrays([pa.array(range(len(values))), array], ["id", "value"])
    secret = None if key is None else SigningKey(key)
    keys, data = sign_both(batch, (["id", "absent"], ["value", "id"]), secret)
    assert [*keys.unsignable, *data.unsignable] == []
    assert keys.signatures.to_pylist() == [signature({"id": row}, key=key) for row in range(len(values))]
    expected = [signature({"id": row, "value": value}, key=key) for row, value in enumerate(values)]
    assert data.signatures.to_pylist() == expected


@relaxed(40)
@given(made=st.lists(columns(), min_size=1, max_size=4), data=st.data())
def test_many_rows_are_signed_like_by_python(made: list[Any], data: Any) -> None:
    arrays = [repeated(array, -(-LARGE // len(array))).slice(0, LARGE) for array, _ in made]
    names = [f"field {number}" for number in range(len(arrays))]
    batch = pa.RecordBatch.from_arrays(arrays, names)
    start = data.draw(st.integers(0, LARGE))
    batch = batch.slice(start, data.draw(st.integers(0, LARGE - start)))
    signed = sign(batch, names)
    assert signed.unsignable == []
    assert signed.signatures.equals(arrow.sign(batch, names).signatures)
    if names_survive(batch.schema, names):
        assert native._sign_plain(batch, names)[0].equals(signed.signatures)


def test_names_that_end_inside_for_c_are_signed_whole() -> None:
    """Arrow's C data interface would cut both members' names to one."""
    batch = pa.record_batch({"id": [1], "v": [{"a\0b": 1, "a": 2}]})
    expected = signature({"id": 1, "v": {"a\0b": 1, "a": 2}})
    assert sign(batch, ["id", "v"]).signatures.to_pylist() == [expected]
    assert sign_both(batch, (["id"], ["id", "v"]))[1].signatures.to_pylist() == [expected]


@relaxed(60)
@given(
    texts=st.lists(st.none() | st.binary(max_size=3) | st.text(max_size=20).map(str.encode), max_size=300),
    members=st.lists(
        st.lists(st.tuples(st.floats(width=16), st.none() | st.integers(0, 2)), max_size=3), min_size=1
    ),
    layout=st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
)
def test_values_without_signature_are_reported_like_by_python(
    texts: list[Any], members: list[Any], layout: Any
) -> None:
    bytes_like = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    raw = pa.array(texts, bytes_like[layout])
    text = pa.Array.from_buffers(layout, len(texts), raw.buffers())
    maps = pa.array(
        [members[row % len(members)] for row in range(len(texts))], pa.map_(pa.float64(), pa.int8())
    )
    batch = pa.RecordBatch.from_arrays([text, maps], ["text", "map"])
    signatures, bad = native.sign(batch, ["map", "text"], b"sixteen bytes or more")
    expected = arrow.sign(batch, ["map", "text"], SigningKey(b"sixteen bytes or more"))
    assert bad == [(entry.row, entry.field, entry.reason) for entry in expected.unsignable]
    assert signatures.equals(expected.signatures)
    keys, data, both = native.sign2(batch, ["text"], ["text", "map"], b"sixteen bytes or more")
    assert both == bad
    assert data.equals(signatures)
    assert keys.is_null().to_pylist() == [
        any(b[:2] == (row, "text") for b in bad) for row in range(len(texts))
    ]
