"""Field signatures from end to end: where entries get them, keep them and lose them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.sqlitefiles import opened

import rundiff
from rundiff.baseline.baseline import Baseline
from rundiff.baseline.fields import FIELD_SIGNATURES
from rundiff.engine.session import open_baseline
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage

Row = dict[str, Any]
ROWS = [{"id": n, "v": n % 2, "t": f"t{n}"} for n in range(100)]


class World:
    """One sync whose changes a function takes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.changed: dict[int, Sequence[str] | None] = {}

    def run(self, rows: list[Row], *, on: bool = True, **options: Any) -> rundiff.Run:
        self.changed = {}

        def take(changes: Sequence[rundiff.SyncWriteRecord]) -> None:
            for change in changes:
                self.changed[change.primary_key["id"]] = change.changed_fields

        return rundiff.sync(
            rows,
            primary_key="id",
            name="s",
            destination=take,
            home=self.home,
            field_signatures=on,
            **options,
        )

    def lose_logs(self) -> None:
        for log in self.home.glob("syncs/*/log/*"):
            shutil.rmtree(log)

    @property
    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.home)))

    def entries(self) -> pa.Table:
        with self.workspace as workspace:
            sync = workspace.backends().database.syncs()[0]
            baseline = open_baseline(workspace.backends(), sync, sync.manifest)
            return live(baseline)

    def known(self) -> int:
        table = self.entries()
        return int(pc.sum(table.column(FIELD_SIGNATURES).is_valid()).as_py()) if signed(table) else 0


def live(baseline: Baseline) -> pa.Table:
    return baseline.gather(baseline.live_mask().nonzero()[0])


def signed(table: pa.Table) -> bool:
    return FIELD_SIGNATURES in table.schema.names


def changed(rows: list[Row], **at: Row) -> list[Row]:
    """Change records by their place: `_3={"v": 9}`."""
    return [{**row, **at.get(f"_{row['id']}", {})} for row in rows]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_field_signature_is_what_the_page_says(world: World) -> None:
    world.run([{"id": 1, "city": "London", "none": None}, {"id": 2, "city": None, "none": None}])
    fields = {
        entry["primary_key"]["id"]: entry[FIELD_SIGNATURES]
        for entry in world.entries().select([FIELD_SIGNATURES, "primary_key"]).to_pylist()
    }
    london = int.from_bytes(rundiff.signature({"id": 1, "city": "London"})[:8], "big")
    assert fields == {1: {"city": london, "none": 0}, 2: {"city": 0, "none": 0}}


def test_turning_it_on_sends_nothing_and_what_is_read_gains(world: World) -> None:
    world.run(ROWS, on=False)
    assert not signed(world.entries())
    # Three of a hundred: into the overlay.
    world.run(ROWS[:3], scope="incremental")
    assert (world.changed, world.known()) == ({}, 3)
    # All of them: a new base.
    world.run(ROWS)
    assert (world.changed, world.known()) == ({}, 100)
    world.lose_logs()
    world.run(changed(ROWS, _3={"v": 9}, _5={"v": 9, "t": "x"}))
    assert world.changed == {3: ("v",), 5: ("v", "t")}


def test_until_then_the_log_tells(world: World) -> None:
    world.run(ROWS, on=False)
    rows = changed(ROWS, _1={"v": 9}, _4={"t": "x"})
    world.run(rows)
    assert world.changed == {1: ("v",), 4: ("t",)}
    assert world.known() == 100


def test_some_are_told_by_signatures_and_some_by_the_log(world: World) -> None:
    world.run(ROWS, on=False)
    world.run(ROWS[:3], scope="incremental")
    world.run(changed(ROWS, _1={"v": 9}, _4={"t": "x"}))
    assert world.changed == {1: ("v",), 4: ("t",)}


def test_turning_it_off_takes_them_away(world: World) -> None:
    world.run(ROWS)
    rows = changed(ROWS, _1={"v": 9})
    world.run(rows, on=False)
    assert (world.changed, signed(world.entries())) == ({1: ("v",)}, False)
    world.run(rows)
    assert (world.changed, world.known()) == ({}, 100)


def test_a_rule_that_changed_meanwhile_leaves_no_stale_ones(world: World) -> None:
    world.run(ROWS)
    world.run(ROWS, on=False, normalize={"t": "casefold"})
    world.run(changed(ROWS, _2={"t": "T2"}, _3={"v": 9}), normalize={"t": "casefold"})
    assert world.changed == {3: ("v",)}


def test_fields_come_and_go(world: World) -> None:
    world.run(ROWS)
    world.lose_logs()
    rows: list[Row] = [{"id": row["id"], "t": row["t"], "new": 1 if row["id"] < 2 else None} for row in ROWS]
    world.run(rows, on_dropped_field="update")
    assert [set(world.changed[key] or ()) for key in (0, 1, 2)] == [{"v", "new"}, {"v", "new"}, {"v"}]


def test_entries_without_write_records_have_them(world: World) -> None:
    world.run(ROWS)
    shutil.rmtree(next(world.home.glob("signatures/*")))
    world.run(ROWS, on_lost_baseline="rebaseline")
    assert (world.changed, world.known()) == ({}, 100)
    world.run(changed(ROWS, _7={"t": "x"}))
    assert world.changed == {7: ("t",)}


def test_a_rebuilt_baseline_has_them(world: World) -> None:
    world.run(ROWS)
    world.run(changed(ROWS, _7={"t": "x"}))
    before = world.entries()
    with world.workspace as workspace:
        workspace.rebuild("s")
    after = world.entries()
    for name in ("primary_key_signature", "data_signature", FIELD_SIGNATURES):
        assert (
            after.sort_by("primary_key_signature")
            .column(name)
            .equals(before.sort_by("primary_key_signature").column(name))
        )


def test_misses_and_partitions_keep_them(world: World) -> None:
    rows = [{**row, "part": "A" if row["id"] < 50 else "B"} for row in ROWS]
    world.run(rows, delete_after_misses=3)
    world.run(rows[1:], delete_after_misses=3)
    world.run(rows[:50], delete_after_misses=3, partition={"part": "A"})
    world.lose_logs()
    assert world.known() == 100
    world.run(changed(rows, _0={"v": 9}, _60={"part": "A"}), delete_after_misses=3)
    assert world.changed == {0: ("v",), 60: ("part",)}


def test_a_function_is_applied_before_signing(world: World) -> None:
    def lower(texts: pa.Array) -> pa.Array:
        return pc.utf8_lower(texts)

    world.run(ROWS, normalize={"t": lower})
    world.lose_logs()
    world.run(changed(ROWS, _1={"t": "T1", "v": 9}, _2={"t": "T2"}), normalize={"t": lower})
    assert world.changed == {1: ("v",)}


def test_what_was_refused_keeps_those_of_before(world: World) -> None:
    """The entry stays as it was, so that the next run tells what differs from that."""
    world.run(ROWS)
    path = world.home / "d.db"
    options: dict[str, Any] = {"primary_key": "id", "name": "strict", "into": "t", "home": world.home}
    options |= {"destination": f"sqlite:///{path}", "field_signatures": True}
    with opened(path) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER CHECK (v < 5), t TEXT)")
    rundiff.sync(ROWS, **options)
    assert rundiff.sync(changed(ROWS, _1={"v": 9}), **options).counts.failed == 1
    shutil.rmtree(next(iter(world.home.glob("syncs/*/log"))))
    with Workspace(Storage(home=str(world.home))) as workspace:
        sync = next(s for s in workspace.backends().database.syncs() if s.name == "strict")
        baseline = open_baseline(workspace.backends(), sync, sync.manifest)
        numbers = {
            entry["primary_key"]["id"]: entry[FIELD_SIGNATURES]["v"]
            for entry in live(baseline).select([FIELD_SIGNATURES, "primary_key"]).to_pylist()
        }
    assert numbers[1] == int.from_bytes(rundiff.signature({"id": 1, "v": 1})[:8], "big")


def test_an_adopted_table_tells_what_changed(tmp_path: Path) -> None:
    """No run has written these rows, so no log has them."""
    with opened(tmp_path / "d.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, t TEXT)")
        connection.executemany("INSERT INTO t VALUES (:id, :v, :t)", ROWS)
    options: dict[str, Any] = {"primary_key": "id", "name": "s", "into": "t", "home": tmp_path / "home"}
    sync = rundiff.Sync(ROWS, destination=f"sqlite:///{tmp_path / 'd.db'}", field_signatures=True, **options)
    sync.adopt()
    plan = rundiff.Sync(
        changed(ROWS, _1={"v": 9}),
        destination=f"sqlite:///{tmp_path / 'd.db'}",
        field_signatures=True,
        **options,
    ).plan()
    assert [change.changed_fields for change in plan.sample] == [("v",)]
