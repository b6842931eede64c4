"""The committed digests: what signatures of format version 1 are, for ever."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import cbor2
import numpy as np
import pyarrow as pa
import pytest

from rundiff.signing import mixed, signature
from rundiff.signing.contract import Signer
from rundiff.signing.reference import encode
from rundiff.signing.values import Day, Duration, Interval, Timestamp

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "signatures.json").read_text())["signatures"]
SPELLING = {
    known.__name__: known
    for known in (
        Decimal,
        UUID,
        date,
        datetime,
        time,
        timedelta,
        timezone,
        Day,
        Duration,
        Interval,
        Timestamp,
    )
} | {"UTC": UTC, "np": np, "pa": pa, "struct": struct, "mixed": mixed}


def value_of(spelling: str) -> Any:
    return eval(spelling, dict(SPELLING))  # noqa: S307 - the golden file is part of this suite


def described(golden: dict[str, Any]) -> str:
    return str(golden["description"])


@pytest.mark.parametrize("golden", GOLDEN, ids=described)
def test_the_digest_is_that_of_the_written_encoding(golden: dict[str, Any]) -> None:
    record = bytes.fromhex(golden["record"])
    assert hashlib.sha256(record).hexdigest() == golden["digest"]
    value = cbor2.dumps("value") + bytes.fromhex(golden["cbor"])
    assert record == (b"\xa0" if golden["cbor"] == "f6" else b"\xa1" + value)


@pytest.mark.parametrize("golden", GOLDEN, ids=described)
def test_the_reference_gives_it(golden: dict[str, Any]) -> None:
    value = value_of(golden["python"])
    assert encode(value).hex() == golden["cbor"]
    assert signature({"value": value}).hex() == golden["digest"]


@pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden["arrow"]], ids=described)
def test_every_signer_gives_it(signer: Signer, golden: dict[str, Any]) -> None:
    batch = pa.RecordBatch.from_arrays([value_of(golden["arrow"])], ["value"])
    signed = signer(batch, ["value"])
    assert list(signed.unsignable) == []
    assert [item.hex() for item in signed.signatures.to_pylist()] == [golden["digest"]]


@pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden["arrow"]], ids=described)
def test_every_signer_gives_it_in_many_rows(signer: Signer, golden: dict[str, Any]) -> None:
    value = value_of(golden["arrow"])
    assert len(value) == 1
    try:
        values = pa.concat_arrays([value] * 20)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = pa.chunked_array([value] * 20)
    digests = [
        item.hex()
        for batch in pa.table({"value": values}).to_batches()
        for item in signer(batch, ["value"]).signatures.to_pylist()
    ]
    assert digests == [golden["digest"]] * 20


def test_every_arrow_type_with_a_signature_has_a_golden_one() -> None:
    kinds = {
        str(value_of(golden["arrow"]).type).partition("[")[0].partition("<")[0]
        for golden in GOLDEN
        if golden["arrow"]
    }
    expected = """null bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 halffloat float double
        decimal32(9, 2) decimal64(12, 4) decimal128(5, 2) decimal256(50, 10) string large_string string_view
        binary large_binary binary_view fixed_size_binary date32 date64 time32 time64 timestamp duration
        month_day_nano_interval list large_list fixed_size_list list_view struct map dictionary
        run_end_encoded extension"""
    missing = [kind for kind in expected.replace(", ", ",").split() if kind.replace(",", ", ") not in kinds]
    assert missing == []
