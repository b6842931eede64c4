"""Files are cut into blobs and come back byte for byte, whatever is in them; nothing damaged comes back."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundiff.baseline.order import argsort, words
from rundiff.baseline.segments import entry_schema, write_segment
from rundiff.stores.blob_plans import BLOB_BYTES, DamagedBlobs, Plan, plan_of
from rundiff.stores.blobs import cut, join

KEYS = {
    "integers": pa.array(range(10**12, 10**12 + 5000)),
    "few": pa.array([number % 7 - 3 for number in range(5000)], pa.int32()),
    "texts": pa.array(["é" * (number % 9) for number in range(5000)]),
    "alike": pa.array([f"customer-{number:015d}" for number in range(5000)]),
    "empty": pa.array([""] * 5000),
    "long": pa.array([b"x" * (number % 3 * 30_000) for number in range(300)] * 2, pa.binary()),
    "large": pa.array([str(number) for number in range(5000)], pa.large_string()),
    "nulls": pa.array([None if number % 3 else str(number) for number in range(5000)]),
    "booleans": pa.array([number % 2 == 0 for number in range(5000)]),
    "decimals": pa.array([Decimal(number) / 100 for number in range(5000)], pa.decimal128(12, 2)),
    "times": pa.array(range(5000), pa.timestamp("us", "UTC")),
    "doubles": pa.array([number / 7 for number in range(5000)]),
    "nested": pa.array([[{"a": number, "b": "x"}] * (number % 4) for number in range(5000)]),
    "structs": pa.array([{"a": number, "b": str(number)} for number in range(5000)]),
    "nothing": pa.nulls(5000),
}


def segment(path: Path, keys: dict[str, pa.Array], seed: int = 1) -> None:
    random = np.random.default_rng(seed)
    rows = len(next(iter(keys.values())))

    def signatures() -> pa.Array:
        return pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), rows, [None, pa.py_buffer(random.bytes(32 * rows))]
        )

    first = signatures()
    primary_key = pa.StructArray.from_arrays(list(keys.values()), list(keys))
    batch = pa.RecordBatch.from_arrays(
        [
            first.take(pa.array(argsort(words(first)))),
            signatures(),
            pa.array(np.zeros(rows, np.uint8)),
            pa.array(random.integers(1, 4, rows).astype(np.uint32)),
            pa.array(random.integers(0, 3, rows).astype(np.uint8)),
            primary_key,
        ],
        schema=entry_schema(primary_key.type),
    )
    write_segment(path, batch.schema, [batch])


def there_and_back(path: Path) -> tuple[Plan, list[bytes]]:
    plan, content = plan_of(path)
    blobs = list(cut(plan, content))
    content.release()
    assert len(blobs) == plan.blobs
    back = path.with_name("back")
    join(Plan.decode(plan.encode()), iter(blobs), back)
    assert back.read_bytes() == path.read_bytes()
    return plan, blobs


@pytest.mark.parametrize("kind", KEYS)
def test_segments_of_every_kind_of_key_come_back(tmp_path: Path, kind: str) -> None:
    segment(tmp_path / "base.arrow", {"id": KEYS[kind]})
    plan, blobs = there_and_back(tmp_path / "base.arrow")
    assert plan.batches
    if kind != "long":
        assert max(map(len, blobs)) <= BLOB_BYTES * 1.1


@given(
    st.lists(
        st.tuples(st.text(max_size=40) | st.none(), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=400,
    )
)
def test_any_keys_come_back(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str | None, int]]
) -> None:
    path = tmp_path_factory.mktemp("cut") / "base.arrow"
    segment(
        path,
        {"name": pa.array([text for text, _ in keys], pa.string()), "id": pa.array([n for _, n in keys])},
    )
    there_and_back(path)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda more: b"ARROW1" + more * 200))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("cut") / "object"
    path.write_bytes(content)
    there_and_back(path)


def test_several_batches_come_back(tmp_path: Path) -> None:
    path = tmp_path / "object.arrow"
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start, rows in ((0, 3000), (3000, 0), (3000, 1), (3001, 5000)):
            numbers = range(start, start + rows)
            writer.write_batch(pa.record_batch([list(numbers), [str(each) for each in numbers]], schema))
    plan, _ = there_and_back(path)
    assert [batch.rows for batch in plan.batches] == [3000, 1, 5000]


def test_compressed_files_come_back(tmp_path: Path) -> None:
    path = tmp_path / "object.arrow"
    table = pa.table({"a": list(range(20_000)), "b": ["same text"] * 20_000})
    with pa.ipc.new_file(
        str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(table)
    there_and_back(path)


def test_a_record_takes_little_more_than_its_signatures_and_key(tmp_path: Path) -> None:
    segment(tmp_path / "base.arrow", {"id": KEYS["alike"]})
    _, blobs = there_and_back(tmp_path / "base.arrow")
    assert sum(map(len, blobs)) / 5000 < 64 + 24 + 3


def damages(blobs: list[bytes]) -> Iterable[list[bytes]]:
    yield blobs[:-1]
    yield blobs[1:]
    yield [*blobs, blobs[0]]
    yield [blobs[1], blobs[0], *blobs[2:]]
    yield [b"", *blobs[1:]]
    yield [blobs[0][:-1], *blobs[1:]]
    yield [bytes([blobs[0][0] ^ 1]) + blobs[0][1:], *blobs[1:]]
    yield [bytes(len(each)) for each in blobs]
    yield [b"\xff" * len(each) for each in blobs]


@pytest.mark.parametrize("kind", ["texts", "integers", "nulls"])
def test_what_is_damaged_does_not_come_back(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "base.arrow"
    segment(path, {"id": KEYS[kind]})
    plan, blobs = there_and_back(path)
    for damaged in damages(blobs):
        with pytest.raises(DamagedBlobs):
            join(plan, iter(damaged), tmp_path / "back")


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    segment(tmp_path / "base.arrow", {"id": KEYS["texts"]})
    encoded = plan_of(tmp_path / "base.arrow")[0].encode()
    damaged: list[Any] = [b"", encoded[:-1], encoded[1:], encoded[:20] + b"\x00" + encoded[21:], b"x" * 50]
    for content in damaged:
        with pytest.raises(DamagedBlobs):
            Plan.decode(content)
