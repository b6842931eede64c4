"""The spool: sorted whatever passes its budget, in order of reading among one key, and errors told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rundiff.baseline.order import SIGNATURE
from rundiff.engine.spool import Spool, spool_batch


def rows(first: int, count: int, keys: int = 1_000_000) -> pa.RecordBatch:
    """Records whose key is their number modulo `keys`."""
    numbers = np.arange(first, first + count)
    signatures = pa.array(
        [hashlib.sha256(bytes(str(n % keys), "ascii")).digest() for n in numbers], SIGNATURE
    )
    meta = [
        signatures,
        signatures,
        pa.array(numbers),
        pa.array(np.zeros(count, np.uint8)),
        pa.array(np.full(count, -1)),
    ]
    return spool_batch(meta, pa.record_batch({"id": pa.array(numbers % keys), "order": pa.array(numbers)}))


@pytest.mark.parametrize("budget", [2_000, 20_000, 1 << 20])
def test_rows_come_back_sorted_by_key_then_order(tmp_path: Path, budget: int) -> None:
    spool = Spool(tmp_path, budget)
    with spool:
        for first in range(0, 2_000, 50):
            spool.add(rows(first, 50, keys=700))
    back = pa.Table.from_batches(list(spool.ranges()))
    assert back.num_rows == spool.rows == 2_000
    keys = back.column("primary_key_signature").to_pylist()
    order = back.column("order").to_pylist()
    assert list(zip(keys, order, strict=True)) == sorted(zip(keys, order, strict=True))
    assert back.column("data").combine_chunks().field("order").to_pylist() == order
    assert bool(list(tmp_path.iterdir())) == (budget < 1 << 20)


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gone", 1_000)
    with pytest.raises(OSError, match="gone"), spool:
        spool.add(rows(0, 100))


def test_nothing_is_written_any_more_after_an_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)

    def fill() -> None:
        with spool:
            spool.add(rows(0, 20_000))
            raise KeyError("the source")

    with pytest.raises(KeyError):
        fill()
    assert [path.stat().st_size > 1_000_000 for path in tmp_path.iterdir()] == [True]
