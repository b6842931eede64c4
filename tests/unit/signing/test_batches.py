"""What signers owe beside the right bytes: missing fields, refusals, rows named, threads, large batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rundiff.errors import ConfigurationError
from rundiff.signing import SigningKey, signature
from rundiff.signing.contract import Signer

BROKEN = pa.Array.from_buffers(
    pa.string(),
    5,
    pa.array([b"fine", b"\xff", None, b"\xed\xa0\x80", "ünd".encode()], pa.binary()).buffers(),
)
RUNS = pa.Array.from_buffers(
    pa.run_end_encoded(pa.int32(), pa.string()),
    5,
    [None],
    children=[pa.array([1, 2, 3, 4, 5], pa.int32()), BROKEN],
)


def signatures(
    signer: Signer, columns: dict[str, Any], fields: list[str] | None = None
) -> list[bytes | None]:
    batch = pa.record_batch(columns)
    signed: list[bytes | None] = signer(batch, fields or batch.schema.names).signatures.to_pylist()
    return signed


def test_missing_and_repeated_fields(signer: Signer) -> None:
    columns = {"b": [1, None], "a": ["x", "y"]}
    expected = [signature({"a": "x", "b": 1}), signature({"a": "y"})]
    assert signatures(signer, columns, ["a", "b"]) == expected
    assert signatures(signer, columns, ["b", "absent", "a", "b"]) == expected
    assert signatures(signer, columns, ["a"]) == [signature({"a": "x"}), signature({"a": "y"})]
    assert signatures(signer, columns, ["absent"]) == [signature({})] * 2


def test_no_fields_and_no_rows(signer: Signer) -> None:
    batch = pa.record_batch({"a": [1, 2, 3]})
    assert signer(batch, []).signatures.to_pylist() == [signature({})] * 3
    empty = signer(batch.slice(0, 0), ["a"])
    assert (empty.signatures.type, len(empty.signatures)) == (pa.binary(32), 0)
    nested = pa.record_batch([pa.array([], pa.map_(pa.string(), pa.list_(pa.date32())))], names=["a"])
    assert len(signer(nested, ["a"]).signatures) == 0


@pytest.mark.parametrize("count", [0, 23, 24, 255, 256, 300])
def test_many_fields_and_long_names(signer: Signer, count: int) -> None:
    columns = {f"{'n' * (place % 30)}{place}": [place, None] for place in range(count)} | {
        "last": [True, False]
    }
    expected = [signature({name: values[row] for name, values in columns.items()}) for row in (0, 1)]
    assert signatures(signer, columns) == expected


@pytest.mark.parametrize("length", [0, 23, 24, 255, 256, 65_535, 65_536, 1_000_000])
def test_long_values(signer: Signer, length: int) -> None:
    values = {"text": "ü" * (length // 2), "raw": b"x" * length, "list": [7] * length}
    columns = {name: [value, None] for name, value in values.items()}
    assert signatures(signer, columns) == [signature(values), signature({})]


def test_broken_texts_name_row_and_field(signer: Signer) -> None:
    batch = pa.record_batch({"a": [1, 2, 3, 4, 5], "t": BROKEN})
    signed = signer(batch, ["a", "t"])
    assert [(entry.row, entry.field) for entry in signed.unsignable] == [(1, "t"), (3, "t")]
    assert all("UTF-8" in entry.reason for entry in signed.unsignable)
    expected = [{"a": 1, "t": "fine"}, None, {"a": 3}, None, {"a": 5, "t": "ünd"}]
    assert signed.signatures.to_pylist() == [record and signature(record) for record in expected]
    assert signer(batch, ["a"]).unsignable in ([], ())


@pytest.mark.parametrize(
    ("array", "bad"),
    [
        (pa.ListArray.from_arrays(pa.array([0, 1, 1, 3, 4, 5], pa.int32()), BROKEN), [2, 3]),
        (pa.LargeListArray.from_arrays(pa.array([0, 1, 2, 3, 4, 5]), BROKEN), [1, 3]),
        (
            pa.ListViewArray.from_arrays(pa.array([4, 3, 0, 1, 0]), pa.array([1, 1, 1, 2, 2]), BROKEN),
            [1, 3, 4],
        ),
        (pa.StructArray.from_arrays([BROKEN], ["t"]), [1, 3]),
        (pa.StructArray.from_arrays([BROKEN], ["t"], mask=pa.array([False, True, False, False, False])), [3]),
        (pa.DictionaryArray.from_arrays(pa.array([0, 4, 3, None, 3], pa.int8()), BROKEN), [2, 4]),
        (pa.DictionaryArray.from_arrays(pa.array([0, 4, 0, None, 0], pa.int8()), BROKEN), []),
        (RUNS, [1, 3]),
        (pa.ExtensionArray.from_storage(pa.json_(), BROKEN), [1, 3]),
        (
            pa.MapArray.from_arrays(pa.array([0, 1, 2, 3, 4, 5], pa.int32()), pa.array(range(5)), BROKEN),
            [1, 3],
        ),
        (
            pa.MapArray.from_arrays(
                pa.array([0, 1, 2, 2, 2, 2], pa.int32()),
                BROKEN.slice(0, 2),
                pa.array([None, None], pa.int8()),
            ),
            [1],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_broken_texts_are_found_inside_others(signer: Signer, array: pa.Array, bad: list[int]) -> None:
    for offset in (0, 1, 2):
        part = array.slice(offset)
        signed = signer(pa.RecordBatch.from_arrays([part], ["outer"]), ["outer"])
        left = [row - offset for row in bad if row >= offset]
        assert sorted({(entry.row, entry.field) for entry in signed.unsignable}) == [
            (row, "outer") for row in left
        ]
        assert [row for row, item in enumerate(signed.signatures.to_pylist()) if item is None] == left


def test_duplicate_map_keys_name_the_reason(signer: Signer) -> None:
    array = pa.array([[("a", 1), ("b", 2)], [("a", 1), ("a", None)], None], pa.map_(pa.string(), pa.int8()))
    signed = signer(pa.RecordBatch.from_arrays([array], ["m"]), ["m"])
    assert [(entry.row, entry.field) for entry in signed.unsignable] == [(1, "m")]
    assert "key" in signed.unsignable[0].reason
    assert signed.signatures.to_pylist() == [signature({"m": {"a": 1, "b": 2}}), None, signature({})]


class _Foreign(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.int8(), "elsewhere.money")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


_UNION = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
_FOREIGN = pa.ExtensionArray.from_storage(_Foreign(), pa.array([1], pa.int8()))
_TENSOR = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (_UNION, "sparse_union"),
        (
            pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
            "dense_union",
        ),
        (_FOREIGN, "elsewhere.money"),
        (_TENSOR, "fixed_shape_tensor"),
        (pa.StructArray.from_arrays([_UNION], ["inner"]), "sparse_union"),
        (pa.ListArray.from_arrays([0, 1], _FOREIGN), "elsewhere.money"),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), "two members of one name"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_types_without_signature_are_refused_by_field(signer: Signer, array: pa.Array, reason: str) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), array], ["fine", "strange one"])
    with pytest.raises(ConfigurationError, match=rf"'strange one'.*{reason}.*exclude"):
        signer(batch, ["fine", "strange one"])
    assert signer(batch, ["fine"]).signatures.to_pylist() == [signature({"fine": 1})]


def test_an_extension_that_came_as_its_storage_is_refused_too(signer: Signer) -> None:
    field = pa.field("where", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    batch = pa.RecordBatch.from_arrays([pa.array([b"x"])], schema=pa.schema([field]))
    with pytest.raises(ConfigurationError, match=r"'where'.*geoarrow\.wkb"):
        signer(batch, ["where"])


def test_two_columns_of_one_name_are_refused(signer: Signer) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    with pytest.raises(ConfigurationError, match="'x' occurs 2 times"):
        signer(batch, ["x"])


def wide_batch(rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(rows)
    return pa.record_batch(
        {
            "id": np.arange(rows),
            "score": random.normal(size=rows),
            "name": [f"name {number % 977}" if number % 5 else None for number in range(rows)],
            "amount": pa.array([Decimal(number) / 100 for number in range(rows)], pa.decimal128(38, 18)),
            "seen": pa.array(random.integers(0, 2**60, rows)).cast(pa.timestamp("ns")),
            "tags": [["a", None, str(number)] if number % 3 else None for number in range(rows)],
        }
    )


def test_large_batches_keep_their_rows_in_order(signer: Signer) -> None:
    batch = wide_batch(230_000)
    key = SigningKey(b"sixteen bytes or more")
    signed = signer(batch, batch.schema.names, key)
    assert len(signed.signatures) == batch.num_rows
    for row in [0, 1, 32_767, 32_768, 65_536, 200_001, 229_999]:
        alone = signer(batch.slice(row, 1), batch.schema.names, key)
        assert signed.signatures[row] == alone.signatures[0]
    assert len(set(signed.signatures.to_pylist())) == batch.num_rows


def test_signers_work_from_many_threads(signer: Signer) -> None:
    batch = wide_batch(20_000)
    fields = batch.schema.names
    alone = signer(batch, fields).signatures
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(
            lambda start: signer(batch.slice(start, 6_000), fields).signatures, range(0, 14_000, 700)
        )
        assert all(part == alone.slice(place * 700, 6_000) for place, part in enumerate(found))


@pytest.mark.parametrize("scale", [0, 2, 7, 18, 30, 38])
def test_decimals_of_every_scale(signer: Signer, scale: int) -> None:
    digits = [0, 1, -1, 10, 100, 12300, 10**18, -(10**20), 2**63, 2**64, 10**37, 10**38 - 1, 1 - 10**38, None]
    values = [
        None if number is None else Decimal(number).scaleb(-scale, Context(prec=40)) for number in digits
    ]
    for part in (values, values[:6]):
        columns = {"value": pa.array(part, pa.decimal128(38, scale))}
        assert signatures(signer, columns) == [signature({"value": value}) for value in part]
