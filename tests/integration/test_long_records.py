"""Long records pass through in many pieces: spool, row groups, deletions and what they held before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rundiff
from rundiff import rowgroups
from rundiff.engine import deletions, finding
from rundiff.engine.spool import Spool

ROWS = 300


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowgroups, "GROUP_BYTES", 50_000)
    monkeypatch.setattr(finding, "Spool", lambda folder: Spool(folder, budget=200_000))
    monkeypatch.setattr(deletions, "_FIRST", 7)
    monkeypatch.setattr(deletions, "_CHUNK_BYTES", 20_000)


def articles(ids: range, version: int) -> pa.Table:
    texts = [f"version {version if n % 3 == 0 else 1} of {n} " * 100 for n in ids]
    scores = [None if n % 5 == 0 else n / 7 for n in ids]
    return pa.table({"id": ids, "body": texts, "score": scores, "word": [f"word {n % 4}" for n in ids]})


def delivered(folder: Path, run: int) -> list[tuple[str, dict[str, Any]]]:
    file = pq.ParquetFile(folder / f"run-{run:08d}.parquet")
    rows = file.read().to_pylist()
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    # Each action's records are in the order of their keys' signatures.
    order = ["delete", "update", "create"]
    assert rows == sorted(rows, key=lambda row: (order.index(row["action"]), row["primary_key_signature"]))
    return sorted(((row["action"], row["data"]) for row in rows), key=lambda pair: (pair[0], pair[1]["id"]))


def test_runs_of_long_records(tmp_path: Path) -> None:
    folder = tmp_path / "out.parquet"

    def run(table: pa.Table) -> tuple[int, int, int]:
        result = rundiff.sync(
            table,
            primary_key="id",
            name="articles",
            destination=str(folder),
            home=tmp_path / "home",
            max_delete_percent=100,
        )
        return result.counts.created, result.counts.updated, result.counts.deleted

    first = articles(range(ROWS), 1)
    assert run(first) == (ROWS, 0, 0)
    assert delivered(folder, 1) == [("create", row) for row in first.to_pylist()]

    second = articles(range(90, ROWS + 40), 2)
    before, after = ({row["id"]: row for row in one.to_pylist()} for one in (first, second))
    updated = [n for n in before if n in after and before[n] != after[n]]
    assert run(second) == (40, len(updated), 90)
    assert delivered(folder, 2) == [
        *(("create", after[n]) for n in range(ROWS, ROWS + 40)),
        *(("delete", before[n]) for n in range(90)),
        *(("update", after[n]) for n in updated),
    ]
    # What was written by two runs is read back from the logs of both.
    assert run(articles(range(2), 3)) == (2, 0, ROWS - 50)
    assert [row for action, row in delivered(folder, 3) if action == "delete"] == list(after.values())
