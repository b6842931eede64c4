"""Every signer gives the reference's signatures, for arrays of all types, layouts and nestings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rundiff.signing import SigningKey
from rundiff.signing.reference import encode, signature
from tests.property.signing_arrays import PLAIN_KINDS, build, kinds, meaning, optional
from tests.unit.signing.signers import SIGNERS, signer_of

KEY = SigningKey(b"sixteen bytes or more")


def relaxed(examples: int = settings().max_examples) -> settings:
    """Settings for strategies that draw whole arrays; the profile says how many if not told."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=examples, deadline=None, suppress_health_check=slow)


@pytest.fixture(params=SIGNERS, scope="module")
def signer(request: pytest.FixtureRequest) -> Any:
    return signer_of(request.param)


@st.composite
def batches(draw: Any) -> tuple[pa.RecordBatch, list[dict[str, Any]]]:
    """A batch of up to three fields, and its rows as the reference takes them."""
    names = draw(st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=3))
    rows = draw(st.integers(1, 6))
    arrays, meanings = [], []
    for _ in names:
        kind = draw(kinds)
        raws = draw(st.lists(optional(kind), min_size=rows, max_size=rows))
        arrays.append(build(draw, kind, raws))
        meanings.append([meaning(kind, raw) for raw in raws])
    batch = pa.RecordBatch.from_arrays(arrays, names)
    records = [dict(zip(names, row, strict=True)) for row in zip(*meanings, strict=True)]
    return batch, records


@relaxed()
@given(made=batches(), key=st.sampled_from([None, KEY]))
def test_batches_are_signed_like_the_reference(signer: Any, made: Any, key: SigningKey | None) -> None:
    batch, records = made
    signed = signer(batch, batch.schema.names, key)
    assert list(signed.unsignable) == []
    assert signed.signatures.type == pa.binary(32)
    expected = [signature(record, key=None if key is None else key.secret) for record in records]
    assert signed.signatures.to_pylist() == expected


@relaxed(10)
@pytest.mark.parametrize("kind", PLAIN_KINDS, ids=str)
@given(data=st.data())
def test_each_plain_type_is_signed_like_the_reference(signer: Any, kind: pa.DataType, data: Any) -> None:
    raws = data.draw(st.lists(optional(kind), min_size=1, max_size=40))
    batch = pa.RecordBatch.from_arrays([build(data.draw, kind, raws)], ["value"])
    expected = [signature({"value": meaning(kind, raw)}) for raw in raws]
    assert signer(batch, ["value"]).signatures.to_pylist() == expected


@relaxed(60)
@given(
    members=st.lists(
        st.lists(st.tuples(st.floats(width=16), st.none() | st.integers(0, 2)), max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_duplicate_map_keys_leave_a_row_without_signature(signer: Any, members: list[Any]) -> None:
    kind = pa.map_(pa.float64(), pa.int8())
    batch = pa.RecordBatch.from_arrays([pa.array(members, kind)], ["value"])
    signed = signer(batch, ["value"])
    doubled = [len({encode(key) for key, _ in row}) < len(row) for row in members]
    assert [item is None for item in signed.signatures.to_pylist()] == doubled
    assert [entry.row for entry in signed.unsignable] == np.flatnonzero(doubled).tolist()


@relaxed(60)
@given(
    texts=st.lists(
        st.none() | st.binary(max_size=4) | st.sampled_from([b"\xed\xa0\x80"]), min_size=1, max_size=6
    )
)
def test_texts_that_are_not_utf8_leave_a_row_without_signature(
    signer: Any, texts: list[bytes | None]
) -> None:
    binary = pa.array(texts, pa.binary())
    array = pa.Array.from_buffers(pa.string(), len(texts), binary.buffers())
    signed = signer(pa.RecordBatch.from_arrays([array], ["value"]), ["value"])
    broken = [text is not None and not _is_utf8(text) for text in texts]
    assert [item is None for item in signed.signatures.to_pylist()] == broken
    assert [(entry.row, entry.field) for entry in signed.unsignable] == [
        (row, "value") for row, is_broken in enumerate(broken) if is_broken
    ]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
