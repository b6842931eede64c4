"""Long records: what the write log holds goes into delivered Parquet files as it is stored, and is the same."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rundiff
from rundiff import rowgroups
from rundiff.engine import spool

ROWS = 300


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowgroups, "GROUP_BYTES", 50_000)
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (200_000,))


def articles(ids: range, version: int, **more: pa.Array) -> pa.Table:
    texts = [f"version {version if n % 3 == 0 else 1} of {n} " * 100 for n in ids]
    scores = [None if n % 5 == 0 else n / 7 for n in ids]
    words = [f"word {n % 4}" for n in ids]
    return pa.table({"id": ids, "body": texts, "score": scores, "word": words, **more})


def delivered(folder: Path, run: int) -> list[tuple[str, dict[str, object]]]:
    rows = (
        pq.ParquetFile(folder / f"run-{run:08d}.parquet", page_checksum_verification=True).read().to_pylist()
    )
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    return sorted(((row["action"], row["data"]) for row in rows), key=lambda pair: (pair[0], pair[1]["id"]))


@pytest.mark.parametrize("copied", [True, False])
def test_runs_of_long_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool) -> None:
    taken: list[bool] = []
    write_with = rowgroups.RowGroups.write_with

    def noted(self: rowgroups.RowGroups, rows: pa.Table, column: str, there: rowgroups.RowGroup) -> bool:
        taken.append(copied and write_with(self, rows, column, there))
        return taken[-1]

    monkeypatch.setattr(rowgroups.RowGroups, "write_with", noted)
    folder = tmp_path / "out.parquet"

    def run(table: pa.Table) -> rundiff.Run:
        return rundiff.sync(
            table,
            primary_key="id",
            name="articles",
            destination=str(folder),
            home=tmp_path / "home",
            max_delete_percent=100,
        )

    first = articles(range(ROWS), 1)
    assert run(first).counts.created == ROWS
    assert delivered(folder, 1) == [("create", row) for row in first.to_pylist()]
    assert len(taken) > 2
    assert set(taken) == {copied}

    taken.clear()
    second = articles(range(30, ROWS + 40), 2)
    result = run(second)
    before, after = ({row["id"]: row for row in one.to_pylist()} for one in (first, second))
    updated = [n for n in before if n in after and before[n] != after[n]]
    assert (result.counts.created, result.counts.updated, result.counts.deleted) == (40, len(updated), 30)
    assert delivered(folder, 2) == [
        *(("create", after[n]) for n in range(ROWS, ROWS + 40)),
        *(("delete", before[n]) for n in range(30)),
        *(("update", after[n]) for n in updated),
    ]
    assert set(taken) == {copied}

    # Deleted records lack the new field, so that what the log holds of them is not what is delivered.
    taken.clear()
    third = articles(range(60, ROWS), 2, extra=pa.array(["more"] * (ROWS - 60)))
    run(third)
    rows = delivered(folder, 3)
    assert [row for action, row in rows if action == "update"] == third.to_pylist()
    assert {row["extra"] for action, row in rows if action == "delete"} == {None}
    assert taken.count(copied) >= 3
    assert False in taken
