"""Adopted entries: sorted whatever passes the budget, one a key, and doubtful ones flagged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rundiff.baseline.order import as_signatures, is_sorted, words
from rundiff.baseline.segments import FLAG_UNCERTAIN, entries
from rundiff.engine.adopted import Adopted, flagged
from rundiff.signing import sign


def made(numbers: list[int], odd: list[bool]) -> pa.RecordBatch:
    """Entries of the keys; the key `partition` has the name of a column of entries."""
    keys = pa.record_batch({"partition": pa.array(numbers, pa.int64())})
    signatures = sign(keys, ["partition"]).signatures
    blank = as_signatures(np.zeros((len(numbers), 4), dtype=">u8"))
    partition = pa.array([b"p" * 16] * len(numbers), pa.binary(16))
    batch = entries((signatures, blank), keys.to_struct_array(), written_run=0, partition=partition)
    return flagged(batch, np.array(odd, dtype=np.bool_))


@pytest.mark.parametrize("budget", [1 << 30, 20_000])
def test_one_entry_a_key_in_order_whatever_the_budget(tmp_path: Path, budget: int) -> None:
    numbers = np.random.default_rng(3).permutation(2000)
    with Adopted(tmp_path, budget) as adopted:
        for part in np.array_split(numbers, 20):
            adopted.add(made(part.tolist(), [int(n) % 100 == 7 for n in part]))
        # Rows of keys that stand there already, far from the first ones.
        adopted.add(made([5, 500, 500, 107], [False] * 4))
        adopted.add(made([], []))
    batches = list(adopted.entries())
    assert (len(batches) > 1) == (budget < 1 << 30)
    table = pa.Table.from_batches(batches)
    assert is_sorted(words(table.column("primary_key_signature")))
    keys = [key["partition"] for key in table.column("primary_key").to_pylist()]
    assert sorted(keys) == list(range(2000))
    uncertain = {key for key, flag in zip(keys, table.column("flags").to_pylist(), strict=True) if flag}
    assert uncertain == {n for n in range(2000) if n % 100 == 7} | {5, 500}
    assert set(table.column("flags").to_pylist()) == {0, FLAG_UNCERTAIN}
    assert set(table.column("partition").to_pylist()) == {b"p" * 16}
    assert (adopted.repeated, adopted.odd) == (3, 22)
    adopted.clear()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_no_entry(tmp_path: Path) -> None:
    with Adopted(tmp_path) as adopted:
        pass
    assert list(adopted.entries()) == []
