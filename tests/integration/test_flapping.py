"""Records that change back and forth are named, whichever database keeps the write log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.postgresql import PostgresqlServer

import rundiff
from rundiff.cli import main
from rundiff.database.flaps import FLAPS
from rundiff.engine import flapping
from rundiff.engine.views import Flapping, FlappingRecord
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage

Row = dict[str, Any]


class Flipping:
    """One sync, run by run."""

    def __init__(self, home: Path, database: str | None) -> None:
        self.home, self.database = home, database

    def __call__(self, rows: Sequence[Row], **options: Any) -> None:
        rundiff.Sync(
            rows, "id", name="s", destination=f"{self.home / 'out.jsonl'}", home=self.home,
            database=self.database, max_delete_percent=100.0, allow_empty=True, **options,
        ).run()  # fmt: skip

    def states(self, *versions: str) -> None:
        """Make a run for each version, in which the record 1 has that `v`, or is gone for "-"."""
        for version in versions:
            self([{"id": 0, "v": "same"}] + ([] if version == "-" else [{"id": 1, "v": version}]))

    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.home), database=self.database))

    def found(self, run: int | None = None) -> Flapping | None:
        with self.workspace() as workspace:
            return workspace.flapping("s", run)


@pytest.fixture(params=["embedded", "postgresql"])
def flipping(request: pytest.FixtureRequest, tmp_path: Path) -> Flipping:
    database = None
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        database = server.create_database()
    return Flipping(tmp_path / "home", database)


def test_a_record_that_alternates_is_named_with_its_fields(flipping: Flipping) -> None:
    for note, status in (("a", 1), ("a", 2), ("a", 1)):
        flipping([{"id": 7, "note": note, "status": status}, {"id": 8, "note": note, "status": 0}])
    assert flipping.found() is None
    for note, status in (("b", 2), ("b", 1), ("b", 2)):
        flipping([{"id": 7, "note": note, "status": status}, {"id": 8, "note": note, "status": 0}])
    record = FlappingRecord(primary_key={"id": 7}, changes=6, returns=2, deletes=0, fields=("status",))
    assert flipping.found() == Flapping(
        runs=6, from_run=1, to_run=6, count=1, estimated=False, sample=[record]
    )
    # Up to the run before, it had come back once only.
    before = flipping.found(5)
    assert before is not None
    assert (before.to_run, before.count) == (5, 0)


def test_a_record_that_is_deleted_and_created_again(flipping: Flipping) -> None:
    flipping.states("a", "-", "b", "-", "c", "-")
    found = flipping.found()
    assert found is not None
    # Not its data but its being gone came back.
    [record] = found.sample
    assert record == FlappingRecord(primary_key={"id": 1}, changes=6, returns=2, deletes=3, fields=())


def test_only_the_last_runs_that_count_are_looked_at(flipping: Flipping) -> None:
    flipping.states("a", "b", "a", "b", "c", "d", "e", "f", "g", "h")
    found = flipping.found()
    assert found is not None
    assert (found.from_run, found.runs, found.count) == (1, 10, 1)
    flipping.states("i")
    found = flipping.found()
    assert found is not None
    assert (found.from_run, found.runs, found.count) == (2, 10, 0)
    with flipping.workspace() as workspace:
        workspace.reset("s")
    flipping.states("a", "b", "a")
    assert flipping.found() is None


def test_of_many_write_records_a_part_of_the_keys_is_looked_at(
    flipping: Flipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    flipping([{"id": i, "v": 0} for i in range(2000)])
    for v in (1, 0, 1, 0):
        flipping([{"id": i, "v": v if i < 400 else 0} for i in range(2000)])
    exact = flipping.found()
    assert exact is not None
    assert (exact.runs, exact.from_run, exact.count, exact.estimated) == (5, 1, 400, False)
    # What the first run created counts no more, and of the others a half.
    monkeypatch.setattr(flapping, "MOST_RECORDS", 800)
    part = flipping.found()
    assert part is not None
    assert (part.runs, part.from_run, part.estimated) == (4, 2, True)
    assert 300 < part.count < 500
    assert part.count % 2 == 0
    assert len(part.sample) == 10
    assert {record.returns for record in part.sample} == {2}


def test_damaged_logs_do_not_stand_in_the_way(tmp_path: Path) -> None:
    flipping = Flipping(tmp_path / "home", None)
    flipping.states("a", "b", "a", "b")
    for path in flipping.home.rglob("updates.parquet"):
        path.write_bytes(b"damaged")
    assert flipping.found() is None
    assert main(["show", "s", "--home", str(flipping.home), "--json"]) == 0


def test_show_names_them(flipping: Flipping, capsys: pytest.CaptureFixture[str]) -> None:
    where = [] if flipping.database is None else ["--database", flipping.database]
    show = ["show", "s", "--home", str(flipping.home), *where]
    flipping.states("a", "b", "a")
    assert main([*show, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flapping"] is None
    flipping.states("b", "-", "b")
    assert main([*show, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flapping"] == {
        "runs": 6, "from_run": 1, "to_run": 6, "count": 1, "estimated": False,
        "sample": [{"primary_key": {"id": 1}, "changes": 6, "returns": 3, "deletes": 1, "fields": ["v"]}],
    }  # fmt: skip
    assert main(show) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "1 record changed back and forth in the runs 1 to 6:",
        "    id=1: 6 changes, 3 of them back to an earlier state; v; deleted once",
    ]
    assert main([*show, "--run", "4"]) == 0
    assert "changed back and forth in the runs 1 to 4" in capsys.readouterr().out
    assert main([*show, "--run", "3"]) == 0
    assert "back and forth" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "scope",
    [
        {"scope": "incremental"},
        {"partition": {"region": "EU"}},
        {"partition_by": ["region"]},
        {"partition_by": ["region"], "partitions": ["EU"]},
    ],
)
def test_runs_of_a_part_are_looked_at_like_others(flipping: Flipping, scope: dict[str, Any]) -> None:
    def one(v: str, region: str = "EU") -> Row:
        return {"id": 1, "region": region, "v": v}

    flipping([one("a"), {"id": 2, "region": "US", "v": "a"}, {"id": 3, "region": "EU", "v": "a"}])
    others = [{"id": 3, "region": "EU", "v": "a"}]
    for v in "baba":
        flipping([one(v), *others], **scope)
    found = flipping.found()
    assert found is not None
    assert (found.from_run, found.to_run, found.count) == (1, 5, 1)
    assert [(each.primary_key, each.returns, each.fields) for each in found.sample] == [
        ({"id": 1}, 3, ("v",))
    ]
    if scope != {"scope": "incremental"}:
        # Not read in a partition that was covered, it is deleted, and comes back.
        for rows in (others, [one("a"), *others], others, [one("a"), *others]):
            flipping(rows, **scope)
        found = flipping.found()
        assert found is not None
        assert (found.sample[0].deletes, found.sample[0].returns) == (2, 6)


histories = st.lists(st.lists(st.sampled_from(["-", "a", "b", "c"]), max_size=9), max_size=5)


@given(histories)
def test_the_query_counts_like_a_loop(histories: list[list[str]]) -> None:
    records: list[Row] = []
    expected = {}
    for number, states in enumerate(histories):
        key = bytes([number])
        records += [
            {"key": key, "run": run, "gone": state == "-", "data": state.encode()}
            for run, state in enumerate(states)
        ]
        changes = [state for run, state in enumerate(states) if run == 0 or states[run - 1] != state]
        returns = sum(state in changes[:place] for place, state in enumerate(changes))
        if returns >= 2:
            expected[key] = (len(changes), changes.count("-"), returns)
    shape = pa.schema(
        [("key", pa.binary()), ("run", pa.int64()), ("gone", pa.bool_()), ("data", pa.binary())]
    )
    with duckdb.connect() as connection:
        connection.register("_records", pa.Table.from_pylist(records, shape))
        query = FLAPS.format(records="SELECT * FROM _records")
        found = connection.sql(query).to_arrow_table().to_pylist()
    assert {row["key"]: (row["changes"], row["deletes"], row["returns"]) for row in found} == expected
    assert all(row["flapping"] == len(expected) for row in found)
