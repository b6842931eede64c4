from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from rundiff import rowgroups
from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.errors import ConfigurationError, DestinationError, Fenced, RecordsRefused
from rundiff.rowgroups import RowGroups
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch, every_type

TARGET = Target(sync_id="one", sync="people", primary_key=("id",), token=1)
START = Position(run=3, sequence=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "changes.parquet"


def opened(folder: Path, target: Target = TARGET, start: Position = START) -> Destination:
    destination = open_destination(DestinationOptions(url=str(folder)))
    destination.prepare(target, pa.schema([("id", pa.int64())]))
    destination.claim(target, start)
    return destination


def deliver(folder: Path, target: Target = TARGET) -> None:
    destination = opened(folder, target)
    at = destination.deliver(target, change_batch([{"id": 1}], "create", run=3), START)
    destination.finish(
        target, destination.deliver(target, change_batch([{"id": 2}], "delete", run=3, first=2), at)
    )
    destination.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file_a_run_with_the_columns_of_the_stream(folder: Path) -> None:
    deliver(folder)
    assert names(folder) == ["run-00000003.parquet"]
    table = pq.read_table(folder / "run-00000003.parquet")
    assert table.schema.field("primary_key_signature").type == pa.binary(32)
    first = table.to_pylist()[0]
    digest = first.pop("primary_key_signature")
    assert digest == first.pop("data_signature")
    assert first == {
        "sync": "people",
        "run": 3,
        "sequence": 1,
        "action": "create",
        "primary_key": {"id": 1},
        "data": {"id": 1},
        "changed_fields": None,
        "idempotency_key": "one/3/1",
    }
    assert table["sequence"].to_pylist() == [1, 2]


def test_nothing_is_seen_before_the_end(folder: Path) -> None:
    destination = opened(folder)
    at = destination.deliver(TARGET, change_batch([{"id": 1}], "create", run=3), START)
    assert list(folder.glob("*.parquet")) == []
    assert all(name.startswith(".") for name in names(folder))
    destination.finish(TARGET, at)
    assert names(folder) == ["run-00000003.parquet"]


def test_no_change_is_lost_where_a_row_group_is_not_encoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = opened(folder)
    encoded = RowGroups._encoded
    broken = [True]

    def first_broken(self: RowGroups, rows: pa.Table) -> pa.Array | None:
        if broken.pop() if broken else False:
            raise pa.lib.ArrowMemoryError("malloc of size 64 failed")
        return encoded(self, rows)

    monkeypatch.setattr(RowGroups, "_encoded", first_broken)
    with pytest.raises(DestinationError, match="malloc of size 64 failed") as caught:
        _deliver_many(destination)
    # What is refused would be set aside record by record, and these are none of them.
    assert not isinstance(caught.value, RecordsRefused)
    with pytest.raises(DestinationError):
        _deliver_many(destination, again=True)
    destination.close()
    assert names(folder) == []


def _deliver_many(destination: Destination, *, again: bool = False) -> None:
    at = START if not again else destination._at
    for first in range(at.sequence + 1, at.sequence + 12):
        batch = change_batch([{"id": first}], "create", run=3, first=first)
        at = destination.deliver(TARGET, batch, at)
    destination.finish(TARGET, at)


def test_a_run_without_changes_leaves_no_file(folder: Path) -> None:
    destination = opened(folder)
    destination.finish(TARGET, START)
    assert names(folder) == []


def test_closing_early_leaves_nothing(folder: Path) -> None:
    destination = opened(folder)
    destination.deliver(TARGET, change_batch([{"id": 1}], "create", run=3), START)
    destination.close()
    assert names(folder) == []


def test_what_a_crash_left_is_removed(folder: Path) -> None:
    folder.mkdir()
    (folder / ".run-00000003.one.1.part").write_bytes(b"half a file")
    (folder / ".run-00000009.two.1.part").write_bytes(b"of another sync")
    deliver(folder, replace(TARGET, token=2))
    assert names(folder) == [".run-00000009.two.1.part", "run-00000003.parquet"]


def test_a_worker_that_was_succeeded_is_refused(folder: Path) -> None:
    old = opened(folder)
    at = old.deliver(TARGET, change_batch([{"id": 1}], "create", run=3), START)
    deliver(folder, replace(TARGET, token=2))
    with pytest.raises(Fenced):
        old.finish(TARGET, at)
    assert pq.read_table(folder / "run-00000003.parquet").num_rows == 2


def test_a_run_delivered_again_replaces_its_file(folder: Path) -> None:
    deliver(folder)
    deliver(folder)
    assert names(folder) == ["run-00000003.parquet"]


def test_a_file_of_another_sync_is_never_replaced(folder: Path) -> None:
    deliver(folder)
    deliver(folder, replace(TARGET, sync_id="two"))
    assert names(folder) == ["run-00000003-two.parquet", "run-00000003.parquet"]


def test_a_run_can_not_go_on_in_the_middle(folder: Path) -> None:
    middle = Position(run=3, sequence=5)
    destination = opened(folder, start=middle)
    with pytest.raises(DestinationError, match="from its first change"):
        destination.deliver(TARGET, change_batch([{"id": 1}], "create", run=3, first=6), middle)
    reached = destination.deliver(TARGET, change_batch([{"id": 1}], "create", run=4), middle)
    destination.finish(TARGET, reached)
    assert names(folder) == ["run-00000004.parquet"]


def test_unknown_data_of_deletes_is_null(folder: Path) -> None:
    destination = opened(folder)
    batch = change_batch([{"id": 1, "v": 2}], "delete", run=3)
    columns = dict(zip(batch.records.schema.names, batch.records.columns, strict=True))
    columns["data"] = pa.nulls(1, columns["data"].type)
    batch = replace(batch, records=pa.record_batch(columns))
    destination.finish(TARGET, destination.deliver(TARGET, batch, START))
    row = pq.read_table(folder / "run-00000003.parquet").to_pylist()[0]
    assert (row["data"], row["primary_key"]) == (None, {"id": 1})


def test_long_changes_have_statistics_of_their_order_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowgroups, "GROUP_BYTES", 2_000)
    for run, body in ((3, "long " * 500), (4, "short")):
        start = Position(run=run, sequence=0)
        destination = opened(folder, start=start)
        records = [{"id": n, "body": body, "score": n / 2} for n in range(4)]
        changes = change_batch(records, "create", run=run)
        destination.finish(TARGET, destination.deliver(TARGET, changes, start))
        destination.close()
        with pq.ParquetFile(folder / f"run-{run:08d}.parquet") as file:
            assert file.read()["data"].to_pylist() == records
            group = file.metadata.row_group(0)
            assert group.num_rows == (1 if run == 3 else 4)
        columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
        assert columns["sequence"].statistics.max == group.num_rows
        assert columns["data.score"].is_stats_set == (run == 4)


def test_types_keep(folder: Path) -> None:
    table = every_type()
    destination = opened(folder)
    destination.finish(TARGET, destination.deliver(TARGET, change_batch(table, "create", run=3), START))
    data = pq.read_table(folder / "run-00000003.parquet")["data"].to_pylist()[0]
    sent = table.to_pylist()[0]
    spelled = {"nan", "huge_decimal", "duration", "duration_ns", "interval", "nulls"}
    assert {name: data[name] for name in sent if name not in spelled} == {
        name: sent[name] for name in sent if name not in spelled
    }
    assert data["huge_decimal"] == str(sent["huge_decimal"])
    assert (data["duration"], data["interval"]) == ("-PT0.999995S", "P1M2DT0.000003S")


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.parquet").write_text("")
    for name in ("missing/a.parquet", "file.parquet"):
        with pytest.raises(ConfigurationError):
            open_destination(DestinationOptions(url=str(tmp_path / name))).check(TARGET, {"id": pa.int64()})


def test_fields_that_come_after_the_deletions_are_kept(folder: Path) -> None:
    destination = open_destination(DestinationOptions(url=str(folder)))
    destination.prepare(TARGET, pa.schema([("id", pa.int64()), ("new", pa.string())]))
    destination.claim(TARGET, START)
    at = destination.deliver(TARGET, change_batch([{"id": 1, "old": 1}], "delete", run=3), START)
    at = destination.deliver(TARGET, change_batch([{"id": 2, "new": "x"}], "create", run=3, first=2), at)
    destination.finish(TARGET, at)
    data = pq.read_table(folder / "run-00000003.parquet")["data"].to_pylist()
    assert data == [{"id": 1, "new": None, "old": 1}, {"id": 2, "new": "x", "old": None}]
