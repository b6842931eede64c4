"""Fields differ exactly where their signatures do, however they are compared."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rundiff.engine.previous import changed_fields
from rundiff.signing.reference import signature
from tests.property.signing_arrays import PLAIN_KINDS, build, meaning, optional


def signed(kind: pa.DataType, raw: Any) -> bytes:
    return signature({"f": meaning(kind, raw)}, ["f"])


@pytest.mark.parametrize("kind", PLAIN_KINDS, ids=str)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_field_changed_where_its_signature_is_another(kind: pa.DataType, data: Any) -> None:
    few = data.draw(st.lists(optional(kind), min_size=1, max_size=3))
    pairs = data.draw(
        st.lists(st.tuples(*[st.sampled_from(few) | optional(kind)] * 2), min_size=1, max_size=8)
    )
    before, after = (
        pa.StructArray.from_arrays([build(data.draw, kind, list(side))], names=["f"])
        for side in zip(*pairs, strict=True)
    )
    changed = changed_fields(before, after, ["f"]).to_pylist()
    assert changed == [["f"] if signed(kind, one) != signed(kind, other) else [] for one, other in pairs]
