"""The native lookup answers like a dictionary, whatever the keys, flags and chunks."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if os.environ.get("RUNDIFF_REQUIRE_NATIVE") == "1":
    native: Any = importlib.import_module("rundiff._native")
else:
    native = pytest.importorskip("rundiff._native", reason="the native core isn't built here")

NEW, SAME, CHANGED, UNSIGNED = range(4)
DELETED, UNCERTAIN = 1, 4

# Keys that share their first bytes, beside uniform ones: buckets of any size, up to all keys in one.
keys = st.builds(
    lambda head, number, tail: head + number.to_bytes(8, "big") + tail,
    st.sampled_from([b"\0" * 8, b"\xff" * 8, b"abcdefgh", b"\x80" + b"\0" * 7]),
    st.integers(0, 40) | st.integers(0, 2**64 - 1),
    st.sampled_from([b"\0" * 16, b"z" * 16]),
) | st.binary(min_size=32, max_size=32)
data_signatures = st.sampled_from([bytes([n]) * 32 for n in range(3)])
entries = st.dictionaries(
    keys, st.tuples(data_signatures, st.sampled_from([0, DELETED, 2, UNCERTAIN])), max_size=120
)

Entries = dict[bytes, tuple[bytes, int]]


def segment(held: Entries, chunk: int) -> list[pa.RecordBatch]:
    """Sorted record batches of `chunk` rows, each cut out of a longer one."""
    rows = sorted((key, *entry) for key, entry in held.items())
    columns = [
        pa.array(column, kind)
        for column, kind in zip(
            [[row[at] for row in [rows[0], *rows]] if rows else [] for at in range(3)],
            [pa.binary(32), pa.binary(32), pa.uint8()],
            strict=True,
        )
    ]
    names = ["primary_key_signature", "data_signature", "flags"]
    whole = pa.RecordBatch.from_arrays(columns, names)
    return [whole.slice(1 + start, min(chunk, len(rows) - start)) for start in range(0, len(rows), chunk)]


@settings(max_examples=200, deadline=None)
@given(
    base=entries,
    overlay=entries,
    others=st.lists(keys, max_size=20),
    chunks=st.tuples(st.integers(1, 150), st.sampled_from([1, 2, 8, 64, 100])),
    data=st.data(),
)
def test_probe_answers_like_a_dictionary(
    base: Entries, overlay: Entries, others: Any, chunks: Any, data: Any
) -> None:
    shared = data.draw(st.lists(st.sampled_from(sorted(base)), max_size=20)) if base else []
    overlay |= {
        key: data.draw(st.tuples(data_signatures, st.sampled_from([0, DELETED, UNCERTAIN]))) for key in shared
    }
    lookup = native.Lookup(segment(base, chunks[0]), segment(overlay, chunks[1]))
    assert (lookup.base_rows, lookup.overlay_rows) == (len(base), len(overlay))
    at = {key: row for row, key in enumerate(sorted(base))}
    at |= {key: len(base) + row for row, key in enumerate(sorted(overlay))}
    pool = [*base, *overlay, *others, None]
    # Few keys first, which are found without an index, then enough for one.
    for wanted in ([pool[0]], data.draw(st.lists(st.sampled_from(pool), max_size=300)), pool):
        asked = [
            data.draw(data_signatures | st.none()) if row < 50 else b"\1" * 32 for row in range(len(wanted))
        ]
        states, positions = lookup.probe(pa.array(wanted, pa.binary(32)), pa.array(asked, pa.binary(32)))
        expected = [_expected(base | overlay, at, key, asks) for key, asks in zip(wanted, asked, strict=True)]
        assert list(zip(states.to_pylist(), positions.to_pylist(), strict=True)) == expected
    assert lookup.superseded().to_pylist() == sorted(
        at_base
        for key, at_base in {key: row for row, key in enumerate(sorted(base))}.items()
        if key in overlay
    )


def _expected(held: Entries, at: dict[bytes, int], key: bytes | None, asks: bytes | None) -> tuple[int, int]:
    if key is None or asks is None:
        return UNSIGNED, -1
    if key not in held or held[key][1] == DELETED:
        return NEW, -1
    data, flags = held[key]
    return (SAME if data == asks and flags != UNCERTAIN else CHANGED), at[key]
