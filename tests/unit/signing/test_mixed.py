"""Columns of mixed types: what comes back, and that they travel."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rundiff.signing import UnsignableValue, mixed, signature
from rundiff.signing.contract import Signer
from rundiff.signing.values import Day, Duration, Interval, Timestamp

SAME = [
    None,
    True,
    -5,
    2**64 - 1,
    1.5,
    math.inf,
    "ü",
    b"\x00",
    [1, None, ["x"]],
    {"a": {"b": 1}},
    {1: "a", (1, 2): "b"},
    Decimal("273.15"),
    Decimal("1E+400"),
    Decimal("-12345678901234567890123456789012345678901234567890.5"),
    2**70,
    -(2**70),
    date(2020, 2, 29),
    date(1, 1, 1),
    datetime(2020, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    timedelta(microseconds=-1),
    Timestamp(0, 1),
    Timestamp(10**12),
    Timestamp(10**12, 1_000),
    Duration(-1, 1),
    Duration(10**15, 1_000),
    Interval(1, -2, 3),
    Day(5_000_000),
    Day(2**63 - 1),
    Timestamp(2**63),
]

CHANGED = [
    (1.0, 1),
    (Decimal("1.50"), Decimal("1.5")),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (datetime.fromisoformat("2020-01-01"), datetime(2020, 1, 1, tzinfo=UTC)),
    (time(1, 2), timedelta(hours=1, minutes=2)),
    ((1, 2), [1, 2]),
    ({"a": 1, "b": None}, {"a": 1}),
    (Decimal("Infinity"), math.inf),
]


@pytest.mark.parametrize("value", SAME, ids=repr)
def test_values_come_back(value: Any) -> None:
    (found,) = mixed.decode(mixed.encode([value]))
    assert found == value
    if not isinstance(value, int):  # integers beyond 64 bits come as decimals
        assert type(found) is type(value)


@pytest.mark.parametrize(("value", "expected"), CHANGED, ids=repr)
def test_what_signs_alike_comes_back_in_one_form(value: Any, expected: Any) -> None:
    (found,) = mixed.decode(mixed.encode([value]))
    assert found == expected
    assert type(found) is type(expected)


def test_nan_comes_back() -> None:
    (found,) = mixed.decode(mixed.encode([math.nan]))
    assert math.isnan(found)


def test_signers_embed_the_bytes(signer: Signer) -> None:
    values = [value for value, _ in CHANGED] + SAME
    batch = pa.RecordBatch.from_arrays([mixed.encode(values)], ["value"])
    assert signer(batch, ["value"]).signatures.to_pylist() == [
        signature({"value": value}) for value in values
    ]


def test_values_without_signature_are_refused() -> None:
    with pytest.raises(UnsignableValue, match="set"):
        mixed.encode([1, {2}])


@pytest.mark.parametrize("damaged", ["", "62c3", "d903e9a0", "d903e901", "c401", "c4820161", "ff"])
def test_damaged_bytes_are_told(damaged: str) -> None:
    storage = pa.array([bytes.fromhex(damaged)], pa.binary())
    array = pa.ExtensionArray.from_storage(mixed.MixedType(), storage)
    with pytest.raises(UnsignableValue, match="damaged"):
        mixed.decode(array)


def test_the_type_survives_files(tmp_path: Path) -> None:
    table = pa.table({"value": mixed.encode([1, "one", None])})
    pq.write_table(table, tmp_path / "mixed.parquet")
    found = pq.read_table(tmp_path / "mixed.parquet").column("value")
    assert found.type == mixed.MixedType()
    assert mixed.decode(found.combine_chunks()) == [1, "one", None]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert pa.ipc.open_stream(sink.getvalue()).read_all().schema == table.schema


def test_importing_it_anew_keeps_the_type_registered() -> None:
    """In a process of its own: the other tests keep the classes that they imported."""
    script = (
        "import importlib; from rundiff.signing import mixed; again = importlib.reload(mixed)\n"
        "array = again.encode([1])\n"
        "assert again.decode(array) == [1] and array.type.extension_name == 'rundiff.cbor'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
