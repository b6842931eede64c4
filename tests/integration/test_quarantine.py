"""What becomes of records that are refused, or of which nobody knows whether they were written."""
# ruff: noqa: ARG002  # the contract fixes the arguments, whether a test's destination needs them or not

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.sqlitefiles import opened

import rundiff
from rundiff.api import Sync
from rundiff.cli import main
from rundiff.destinations import registry
from rundiff.destinations.contract import Capabilities, ChangeBatch, Delivered, NotWritten, Position, Target
from rundiff.destinations.sql import SqlDestination
from rundiff.engine.workspace import Workspace
from rundiff.model import Action
from rundiff.settings import Storage

Row = dict[str, Any]


def people(count: int, start: int = 0) -> list[Row]:
    return [{"id": i, "v": f"v{i}"} for i in range(start, start + count)]


def failures(home: Path, where: str = "true") -> list[Row]:
    with Workspace(Storage(home=str(home))) as workspace:
        found = workspace.sql(f"SELECT * FROM failures WHERE {where} ORDER BY run, sequence")
    rows: list[Row] = found.to_pylist()
    return rows


class Picky:
    """Takes changes one by one; what becomes of a record is for `judge` to say. It counts its batches."""

    identity = "picky:"
    capabilities = Capabilities(
        new_action=Action.CREATE, transactional=False, upserts=True, wants_previous=True, batch_records=100
    )

    def __init__(self) -> None:
        self.rows: dict[int, Any] = {}
        self.sent: list[tuple[str, int]] = []
        """Idempotency keys with the ids that they were sent for."""
        self.batches = 0
        self.judge: Callable[[Row], str] = lambda _: "written"
        """`written`, `refused`, `unknown`, `lost` (unknown, and applied), or `down`, which stops."""

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        pass

    def position(self, target: Target) -> Position | None:
        return None

    def strangers(self, target: Target) -> Sequence[str]:
        return ()

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        return pa.array([False] * keys.num_rows, pa.bool_())

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        pass

    def claim(self, target: Target, start: Position) -> None:
        pass

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        pass

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        return reached

    def finish(self, target: Target, reached: Position) -> None:
        pass

    def close(self) -> None:
        pass

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        self.batches += 1
        aside = []
        for n, record in enumerate(batch.records.to_pylist()):
            sequence, key = batch.first_sequence + n, record["primary_key"]
            what = self.judge(record["data"])
            if what == "down":
                return Delivered(
                    run=batch.run, sequence=sequence - 1, not_written=tuple(aside), stopped="it is down"
                )
            self.sent.append((f"{target.sync_id}/{batch.run}/{sequence}", key["id"]))
            if what in ("refused", "unknown", "lost"):
                aside.append(NotWritten(sequence=sequence, error=f"it is {what}", unknown=what != "refused"))
            if what in ("written", "lost"):
                if batch.action is Action.DELETE:
                    self.rows.pop(key["id"], None)
                else:
                    self.rows[key["id"]] = record["data"]["v"]
        return Delivered(run=batch.run, sequence=batch.last_sequence, not_written=tuple(aside))


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Picky:
    made = Picky()

    class Entry:
        def load(self) -> Any:
            return lambda _: made

    class Entries(list[Entry]):
        names = frozenset({"picky"})

    monkeypatch.setattr(registry, "entry_points", lambda **_: Entries([Entry()]))
    return made


def to_picky(rows: Any, home: Path, **options: Any) -> Sync:
    return Sync(rows, "id", name="s", destination="picky://here", home=home, **options)


def only(ids: set[int], what: str) -> Callable[[Row], str]:
    return lambda data: what if data["id"] in ids else "written"


def test_a_refused_record_keeps_its_old_entry_and_is_tried_again(picky: Picky, home: Path) -> None:
    to_picky(people(5), home).run()
    picky.judge = only({1, 3}, "refused")
    changed = [{"id": i, "v": "new"} for i in range(6) if i != 3]  # 1 and others change, 3 goes, 5 comes
    result = to_picky(changed, home).run()
    assert (result.status, result.counts.written, result.counts.failed) == ("committed", 4, 2)
    assert (picky.rows[1], picky.rows[3], picky.rows[5]) == ("v1", "v3", "new")
    again = to_picky(changed, home).run()
    assert (again.counts.updated, again.counts.deleted, again.counts.failed) == (1, 1, 2)
    # One open entry a key: the newer ones have taken the place of the older ones.
    assert [(f["run"], f["primary_key"]) for f in failures(home, "state = 'open'")] == [
        (3, '{"id": 3}'),
        (3, '{"id": 1}'),
    ]
    picky.judge = only(set(), "")
    healed = to_picky(changed, home).run()
    assert (healed.counts.updated, healed.counts.deleted, healed.counts.failed) == (1, 1, 0)
    assert picky.rows == {row["id"]: row["v"] for row in changed}
    assert failures(home, "state = 'open'") == []


def regional(**values: str) -> list[Row]:
    """Records by their ids, with a value each: `EU1="new"` is the record 1 of the region EU."""
    return [{"id": int(name[2:]), "region": name[:2], "v": value} for name, value in values.items()]


def still_open(home: Path) -> set[tuple[int, str]]:
    return {(f["run"], f["primary_key"]) for f in failures(home, "state = 'open'")}


def test_a_partition_settles_only_what_it_looked_at(picky: Picky, home: Path) -> None:
    part: Row = {"partition": {"region": "EU"}, "max_delete_percent": 100}
    to_picky(regional(EU1="a", EU2="a", US3="a", US4="a"), home, partition_by=["region"], scope="full").run()
    picky.judge = only({1, 2, 3, 5, 6}, "refused")
    changed = regional(EU1="b", EU2="b", US3="b", US4="a", EU5="b", US6="b")
    assert to_picky(changed, home, scope="full").run().counts.failed == 5
    keys = {i: f'{{"id": {i}}}' for i in range(7)}
    assert still_open(home) == {(2, keys[i]) for i in (1, 2, 3, 5, 6)}
    picky.judge = only(set(), "")
    # 1 is written, 2 is again what the destination holds, 5 was not read: whose it was, nobody knows.
    result = to_picky(regional(EU1="b", EU2="a"), home, **part).run()
    assert (result.complete, result.counts.updated, result.counts.unchanged) == (True, 1, 1)
    assert still_open(home) == {(2, keys[i]) for i in (3, 5, 6)}
    # What is taken back is not sent by a retry either.
    retried = to_picky(regional(), home).retry({"id": 3})
    assert (retried.counts.updated, picky.rows[3]) == (1, "b")
    # A run that stays empty in its part settles nothing elsewhere, a full one everything.
    to_picky(regional(EU1="b"), home, **part).run()
    assert still_open(home) == {(2, keys[i]) for i in (5, 6)}
    to_picky(regional(EU1="b", US3="b", US4="a"), home, scope="full").run()
    assert still_open(home) == set()


def test_a_key_that_is_gone_from_its_partition_settles_what_was_refused_of_it(
    picky: Picky, home: Path
) -> None:
    to_picky(regional(EU1="a", EU2="a", US3="a"), home, partition_by=["region"], scope="full").run()
    picky.judge = only({1, 3}, "refused")
    to_picky(regional(EU1="b", EU2="a", US3="b"), home, scope="full").run()
    picky.judge = only(set(), "")
    result = to_picky(regional(EU2="a"), home, partition={"region": "EU"}, delete_after_misses=2).run()
    assert (result.counts.deleted, result.counts.unchanged) == (0, 1)
    assert still_open(home) == {(2, '{"id": 3}')}


@pytest.mark.parametrize("scope", ["full", "incremental"])
def test_reading_that_proves_nothing_settles_what_it_read(picky: Picky, home: Path, scope: str) -> None:
    to_picky(people(4), home).run()
    picky.judge = only({1, 2}, "refused")
    to_picky([{"id": 0, "v": "v0"}, {"id": 1, "v": "new"}, {"id": 2, "v": "new"}, *people(1, 3)], home).run()
    picky.judge = only(set(), "")
    to_picky(people(2), home, scope=scope, expected_rows=3).run()  # 1 is taken back, 2 not read
    assert still_open(home) == {(2, '{"id": 2}')}


@pytest.mark.parametrize("applied", ["unknown", "lost"])
def test_an_unknown_outcome_differs_from_everything_and_counts_as_present(
    picky: Picky, home: Path, applied: str
) -> None:
    to_picky(people(4), home).run()
    picky.judge = only({0, 1, 4}, applied)
    changed = [{"id": 1, "v": "new"}, *people(2, 2), {"id": 4, "v": "v4"}, {"id": 5, "v": "v5"}]
    result = to_picky(changed, home).run()  # deletes 0, updates 1, creates 4 and 5
    assert (result.counts.written, result.counts.failed) == (1, 3)
    assert {f["outcome"] for f in failures(home)} == {"unknown"}
    # Neither the same data nor a missing record is taken for done.
    picky.judge = only(set(), "")
    again = to_picky([{"id": 1, "v": "new"}, *people(2, 2), {"id": 5, "v": "v5"}], home).run()
    assert (again.counts.updated, again.counts.deleted, again.counts.created) == (1, 2, 0)
    assert picky.rows == {1: "new", 2: "v2", 3: "v3", 5: "v5"}
    assert (
        to_picky([{"id": 1, "v": "new"}, *people(2, 2), {"id": 5, "v": "v5"}], home).run().counts.unchanged
        == 4
    )
    assert failures(home, "state = 'open'") == []


def test_a_rebuilt_baseline_is_as_uncertain(picky: Picky, home: Path) -> None:
    to_picky(people(4), home).run()
    picky.judge = only({0, 1}, "unknown")
    changed = [{"id": 1, "v": "new"}, *people(2, 2)]
    to_picky(changed, home).run()
    with Workspace(Storage(home=str(home))) as workspace:
        assert workspace.rebuild("s") == 4
    picky.judge = only(set(), "")
    again = to_picky(changed, home).run()
    assert (again.counts.updated, again.counts.deleted, again.counts.unchanged) == (1, 1, 2)


def test_too_many_failures_stop_a_run_in_order(picky: Picky, home: Path) -> None:
    picky.judge = only(set(range(0, 1000, 2)), "refused")
    with pytest.raises(
        rundiff.DestinationError, match="more than max_failures = 120; the last one"
    ) as caught:
        to_picky(people(1000), home, max_failures=120).run()
    assert caught.value.result is not None
    assert 200 <= caught.value.result.counts.written <= 400
    sent = len(picky.sent)
    assert sent <= 400
    picky.judge = only(set(), "")
    finished = to_picky(people(1000), home).run()
    # Nothing was sent twice but what had been refused, which the run after it found.
    assert len(picky.sent) == 1000 + finished.counts.created
    assert picky.rows == {i: f"v{i}" for i in range(1000)}


def test_a_destination_that_stops_in_the_middle_is_gone_on_with(picky: Picky, home: Path) -> None:
    picky.judge = lambda _: "down" if len(picky.sent) >= 250 else "written"
    with pytest.raises(
        rundiff.DestinationError, match=r"it is down\. Run 1 stopped with 750 of 1,000 changes to go"
    ):
        to_picky(people(1000), home).run()
    assert len(picky.sent) == 250
    picky.judge = only(set(), "")
    to_picky(people(1000), home).run()
    assert len({key for key, _ in picky.sent}) == len(picky.sent) == 1000


def test_retry_sends_under_new_keys_and_only_what_failed(picky: Picky, home: Path) -> None:
    to_picky(people(5), home).run()
    picky.judge = lambda data: {1: "refused", 3: "refused", 4: "lost", 5: "refused"}.get(
        data["id"], "written"
    )
    changed = [{"id": i, "v": "new"} for i in range(6) if i != 3]
    to_picky(changed, home).run()
    before = {key for key, _ in picky.sent}
    with pytest.raises(rundiff.StateChanged, match="this record is not set aside"):
        to_picky(changed, home).retry({"id": 0})
    one = to_picky([], home)
    picky.judge = only({5}, "refused")
    result = one.retry({"id": 1})
    assert (result.kind, result.run, result.counts.updated, result.counts.written) == ("retry", 3, 1, 1)
    assert picky.rows[1] == "new"
    result = one.retry()
    assert (result.counts.created, result.counts.updated, result.counts.deleted) == (1, 1, 1)
    assert (result.counts.written, result.counts.failed) == (2, 1)
    assert {number for key, number in picky.sent if key not in before} == {1, 3, 4, 5}
    assert [f["run"] for f in failures(home, "state = 'open'")] == [4]
    assert one.discard_record({"id": 5}) == 1
    with pytest.raises(rundiff.StateChanged, match="nothing is set aside"):
        one.retry()
    # The baseline knows that 5 was never written: the next run tries again.
    picky.judge = only(set(), "")
    last = to_picky(changed, home).run()
    assert (last.counts.created, last.counts.unchanged) == (1, 4)


def test_retry_leaves_held_deletions_alone(picky: Picky, home: Path) -> None:
    to_picky(people(5), home, max_deletes=1).run()
    picky.judge = only({0}, "refused")
    held = to_picky([{"id": 0, "v": "new"}, {"id": 1, "v": "v1"}], home, max_deletes=1).run()
    assert (held.status, held.counts.deletes_held) == ("held", 3)
    picky.judge = only(set(), "")
    to_picky([], home).retry()
    assert picky.rows[0] == "new"
    assert to_picky([], home).approve().counts.deleted == 3
    assert picky.rows == {0: "new", 1: "v1"}


def test_records_that_never_became_write_records_cannot_be_retried(picky: Picky, home: Path) -> None:
    rows = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 2, "v": "c"}]
    assert to_picky(rows, home, on_conflict="quarantine").run().counts.failed == 1
    with pytest.raises(rundiff.StateChanged, match="it has no write record"):
        to_picky([], home).retry()


def test_one_poison_record_among_100_000_costs_few_batches(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm = tmp_path / "crm.db"
    with opened(crm) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'poison'))")
    rows = pa.table(
        {"id": range(100_000), "v": ["poison" if i == 61_803 else f"v{i}" for i in range(100_000)]}
    )
    batches: list[int] = []
    inner = SqlDestination.deliver

    def counting(self: SqlDestination, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        batches.append(batch.records.num_rows)
        return inner(self, target, batch, expected)

    monkeypatch.setattr(SqlDestination, "deliver", counting)

    def run(table: pa.Table) -> rundiff.Run:
        return rundiff.sync(
            table, primary_key="id", name="s", destination=f"sqlite:///{crm}", into="people", home=home
        )

    result = run(rows)
    assert (result.counts.written, result.counts.failed) == (99_999, 1)
    assert len(batches) <= 2 * math.log2(100_000) + 3
    [entry] = failures(home)
    assert json.loads(entry["primary_key"]) == {"id": 61_803}
    assert "CHECK constraint failed" in entry["error"]
    # Mended, it is delivered, and nothing else is.
    mended = rows.set_column(1, "v", [["mended" if i == 61_803 else f"v{i}" for i in range(100_000)]])
    assert run(mended).counts.written == 1
    with opened(crm) as connection:
        assert connection.execute("SELECT count(*), max(v) FROM people").fetchone()[0] == 100_000
        assert connection.execute("SELECT v FROM people WHERE id = 61803").fetchone() == ("mended",)


def test_retry_and_discard_from_the_command_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crm, source = tmp_path / "crm.db", tmp_path / "people.csv"
    with opened(crm) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT CHECK (length(v) < 3))")
    source.write_text("id,v\n1,ok\n2,long\n3,longer\n")
    common = ["--home", str(home)]
    to = ["--key", "id", "--to", f"sqlite:///{crm}", "--into", "people"]
    assert main(["sync", str(source), *to, *common, "--quiet"]) == 4
    with opened(crm) as connection:
        connection.execute("DROP TABLE people")
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT CHECK (length(v) < 5))")
    capsys.readouterr()
    assert main(["retry", "people", *common, "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["created"], told["written"], told["failed"]) == ("retry", 2, 1, 1)
    assert main(["discard", "people", "--record", "2", *common]) == 1
    assert "this record is not set aside" in capsys.readouterr().err
    assert main(["discard", "people", "--record", "id=3", *common]) == 0
    assert "dropped what was set aside of the record id=3" in capsys.readouterr().out
    assert main(["retry", "people", *common]) == 1
    assert main(["sync", str(source), *to, *common, "--json", "--max-failures", "0"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "more than max_failures = 0" in told["error"]
    assert main(["sync", str(source), *to, *common, "--quiet"]) == 4
