"""What the native core refuses, how it uses threads, and that forks and closed files don't hurt it."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

if os.environ.get("RUNDIFF_REQUIRE_NATIVE") == "1":
    native: Any = importlib.import_module("rundiff._native")
else:
    native = pytest.importorskip("rundiff._native", reason="the native core isn't built here")

RANDOM = np.random.default_rng(7)


def signatures(count: int) -> pa.FixedSizeBinaryArray:
    return pa.array([hashlib.sha256(str(number).encode()).digest() for number in range(count)], pa.binary(32))


def segment(keys: list[bytes]) -> pa.RecordBatch:
    array = pa.array(keys, pa.binary(32))
    names = ["primary_key_signature", "data_signature", "flags"]
    return pa.RecordBatch.from_arrays([array, array, pa.array([0] * len(keys), pa.uint8())], names)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "it is a union"),
        (
            pa.array([[1]], pa.list_(pa.int8())).cast(pa.list_(pa.int8())),
            None,
        ),
        (
            pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "geometry", "somewhere"), pa.array([b""])),
            "it has the extension type arrow.opaque, which is unknown here",
        ),
        (
            pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["same", "same"]),
            "it is a struct with two members of one name",
        ),
    ],
    ids=["union", "list", "unknown extension", "members of one name"],
)
def test_types_without_signature_are_refused_by_name(column: pa.Array, reason: str | None) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), column], ["id", "odd"])
    if reason is None:
        assert len(native.sign(batch, ["id", "odd"])[0]) == 1
        return
    with pytest.raises(ValueError, match=f'the field "odd" can\'t be signed, because {reason}'):
        native.sign(batch, ["id", "odd"])
    assert native.sign(batch, ["id"])[1] == []  # fields that aren't asked for may be of any type


def test_a_field_that_occurs_twice_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"])
    with pytest.raises(ValueError, match='the field "id" occurs more than once'):
        native.sign(batch, ["id"])


def test_absent_fields_are_null_and_no_fields_are_an_empty_map() -> None:
    batch = pa.record_batch({"id": [1, 2]})
    empty = hashlib.sha256(b"\xa0").digest()
    assert native.sign(batch, [])[0].to_pylist() == [empty, empty]
    assert native.sign(batch, ["other"])[0].to_pylist() == [empty, empty]
    assert len(native.sign(batch.slice(0, 0), ["id"])[0]) == 0


def test_long_values_and_many_fields() -> None:
    texts = ["x" * 300_000, "", "ü" * 70_000, None]
    batch = pa.record_batch(
        {f"f{number}": pa.array(texts[number % 4 :] + texts[: number % 4]) for number in range(300)}
    )
    from rundiff.signing.reference import signature

    expected = [signature(record) for record in batch.slice(0, 2).to_pylist()]
    assert native.sign(batch.slice(0, 2), batch.schema.names)[0].to_pylist() == expected


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    kind: pa.DataType = pa.int8()
    for _ in range(70):
        kind = pa.list_(kind)
    batch = pa.RecordBatch.from_arrays([pa.nulls(1, kind)], ["deep"])
    with pytest.raises(ValueError, match="nested more than 64 levels deep"):
        native.sign(batch, ["deep"])


SIGN_AND_PROBE = """
import hashlib, os, sys
import numpy as np, pyarrow as pa
import rundiff._native as native
random = np.random.default_rng(3)
batch = pa.record_batch({"id": np.arange(20_000), "value": random.random(20_000)})
keys, data, _ = native.sign2(batch, ["id"], ["id", "value"])
held = pa.RecordBatch.from_arrays(
    [keys, data, pa.array(np.zeros(20_000, "u1"))], ["primary_key_signature", "data_signature", "flags"]
).take(np.argsort(np.array(keys.to_pylist())))
states, positions = native.Lookup([held], []).probe(keys, data)
digest = hashlib.sha256(b"".join(
    bytes(array.buffers()[1])[: len(array) * width]
    for array, width in [(keys, 32), (data, 32), (states, 1), (positions, 8)]
))
print(native.threads(), digest.hexdigest())
"""


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    results = {}
    for threads in ("1", "3"):
        run = subprocess.run(
            [sys.executable, "-c", SIGN_AND_PROBE],
            env=os.environ | {"RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        used, digest = run.stdout.split()
        results[used] = digest
    assert set(results) == {"1", "3"}
    assert results["1"] == results["3"]


FORK = """
import os, pyarrow as pa
import rundiff._native as native
batch = pa.record_batch({"id": list(range(10_000))})
before = native.sign(batch, ["id"])[0]
child = os.fork()
if child == 0:
    os._exit(0 if native.sign(batch, ["id"])[0].equals(before) else 1)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
def test_a_forked_process_signs_with_its_own_threads() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "0"


def test_a_mapped_segment_is_used_in_place(tmp_path: Path) -> None:
    keys = sorted(signatures(5000).to_pylist())
    path = tmp_path / "segment.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, segment(keys).schema) as writer:
        for start in range(0, 5000, 1024):
            writer.write_batch(segment(keys[start : start + 1024]))
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    before = pa.total_allocated_bytes()
    lookup = native.Lookup(batches, [])
    copied = pa.total_allocated_bytes() - before
    assert copied < 5000 * 65 / 10  # what describes the batches, not their rows
    del batches, reader
    states, positions = lookup.probe(pa.array(keys, pa.binary(32)), pa.array(keys, pa.binary(32)))
    assert set(states.to_pylist()) == {1}
    assert positions.to_pylist() == list(range(5000))


def test_an_unsorted_segment_is_refused() -> None:
    keys = sorted(signatures(1000).to_pylist(), reverse=True)
    lookup = native.Lookup([segment(keys)], [])
    asked = pa.array(keys, pa.binary(32))
    with pytest.raises(ValueError, match="not sorted"):
        lookup.probe(asked, asked)
    with pytest.raises(ValueError, match="not sorted"):
        native.Lookup([segment([keys[1], keys[1]])], []).probe(asked, asked)


def test_segments_of_other_shapes_are_refused() -> None:
    good = segment(sorted(signatures(3).to_pylist()))
    short = good.set_column(0, "primary_key_signature", pa.array([b"short"] * 3, pa.binary(5)))
    with pytest.raises(ValueError, match=r"primary_key_signature must be fixed_size_binary\[32\]"):
        native.Lookup([short], [])
    wide = good.set_column(2, "flags", pa.array([0, 0, 0], pa.int32()))
    with pytest.raises(ValueError, match="flags must be uint8"):
        native.Lookup([], [wide])
    with_null = good.set_column(1, "data_signature", pa.array([None] * 3, pa.binary(32)))
    with pytest.raises(ValueError, match="holds nulls"):
        native.Lookup([with_null], [])
    lookup = native.Lookup([good], [])
    with pytest.raises(ValueError, match="differ in number"):
        lookup.probe(signatures(3), signatures(2))


def test_it_tells_its_version_and_the_hashing_limit() -> None:
    assert native.version.count(".") == 2
    assert native.threads() >= 1
    ways = native._sha256_limit(10_000, 173)
    assert [way for way, _ in ways] in (
        ["plain"],
        ["plain", "pairs"],
        ["plain", "wide"],
        ["plain", "pairs", "wide"],
    )
    assert all(seconds > 0 for _, seconds in ways)


@pytest.mark.parametrize("offsets", [[0, 100, 3], [0, -5, 3], [0, 2**31 - 1, 3], [3, 2, 3]])
@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.list_(pa.int8())], ids=str)
def test_offsets_that_lead_out_of_the_buffers_are_an_error(
    kind: pa.DataType, offsets: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32))]
    if pa.types.is_nested(kind):
        array = pa.Array.from_buffers(kind, 2, buffers, children=[pa.array([1, 2, 3], pa.int8())])
    else:
        array = pa.Array.from_buffers(kind, 2, [*buffers, pa.py_buffer(b"abc")])
    with pytest.raises(ValueError, match="damaged"):
        native.sign(pa.RecordBatch.from_arrays([array], ["value"]), ["value"])
    assert "panicked" in capfd.readouterr().err  # where, for a report


def test_checksums_are_of_parts_that_lie_in_the_content() -> None:
    content = RANDOM.bytes(5_000)
    whole = pa.Array.from_buffers(pa.uint8(), len(content), [None, pa.py_buffer(content)])
    ends = [0, 100, 4_096, 5_000]
    parts = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert native.checksums(whole, ends) == [xxhash.xxh3_64_intdigest(part) for part in parts]
    for wrong in ([10, 5], [5_001]):
        with pytest.raises(ValueError, match="the ends must ascend"):
            native.checksums(whole, wrong)
    with pytest.raises(ValueError, match="an array of uint8"):
        native.checksums(pa.array([1]), [1])
