"""Scopes, marked deletions, grace, proofs of completeness and approvals, as a user meets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.sqlitefiles import opened

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.errors import ConfigurationError, PolicyViolation, StateChanged
from rundiff.settings import Storage

Rows = Iterable[Mapping[str, Any]]


class Syncing:
    """One sync into a SQLite table, with options kept from run to run."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.home = home
        self.options = options

    def __call__(self, source: Any, **options: Any) -> rundiff.Run:
        return rundiff.sync(
            source,
            primary_key="id",
            name="s",
            destination=f"sqlite:///{self.home / 'd.db'}",
            into="t",
            home=self.home,
            **{**self.options, **options},
        )

    def ids(self) -> set[int]:
        with opened(self.home / "d.db") as connection:
            return {row[0] for row in connection.execute("SELECT id FROM t")}

    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.home)))


def rows(*ids: int, region: str = "EU", **more: Any) -> list[dict[str, Any]]:
    return [{"id": i, "region": region, "v": "x", **more} for i in ids]


# Partitions


def test_a_named_partition_deletes_inside_of_it_only(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    sync(rows(1, 2) + rows(3, 4, region="US"))
    result = sync(rows(1), partition={"region": "EU"})
    assert (result.scope, result.counts.deleted) == ("partition", 1)
    assert result.as_json()["scope"] == "partition"
    assert sync.ids() == {1, 3, 4}


def test_a_record_that_moved_is_not_deleted(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    sync(rows(1, 2) + rows(3, region="US"))
    # It left the partition that is covered, and is read in another one.
    result = sync(rows(1) + rows(2, region="US"), partition={"region": "EU"})
    assert (result.counts.updated, result.counts.deleted) == (1, 0)
    # Its partition is the new one from now on.
    assert sync(rows(1), partition={"region": "EU"}).counts.deleted == 0
    assert sync(rows(3, region="US"), partition={"region": "US"}).counts.deleted == 1
    assert sync.ids() == {1, 3}


def test_parents_that_were_read_are_covered(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, partition_by=["account"], max_delete_percent=100)
    everything = [{"id": i, "account": i // 10} for i in (10, 11, 20, 21, 30)]
    sync(everything, scope="full")
    result = sync([{"id": 10, "account": 1}, {"id": 20, "account": 2}, {"id": 22, "account": 2}])
    assert (result.scope, result.counts.created, result.counts.deleted) == ("partition", 1, 2)
    assert sync.ids() == {10, 20, 22, 30}
    # A parent without children does not turn up; it has to be named.
    assert sync([{"id": 10, "account": 1}], partitions=[1, 3]).counts.deleted == 1
    assert sync.ids() == {10, 20, 22}


def test_named_parents_alone_are_covered(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, partition_by=["account"], max_delete_percent=100)
    sync([{"id": i, "account": i // 10} for i in (10, 11, 20, 21)], scope="full")
    # The child 11 moved to account 2, of which nothing else was asked for.
    result = sync([{"id": 10, "account": 1}, {"id": 11, "account": 2}], partitions=[1])
    assert (result.counts.updated, result.counts.deleted) == (1, 0)


@pytest.mark.parametrize(("shop", "value"), [(5, 5), (5, "5"), (2**70, 2**70)])
def test_values_of_partitions_are_matched_by_type(tmp_path: Path, shop: int, value: Any) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    sync([{"id": i, "shop": shop} for i in range(3)])
    assert sync([{"id": 1, "shop": shop}], partition={"shop": value}).counts.deleted == 2


def test_several_fields_and_values(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    every = [
        {"id": i, "region": region, "tier": tier}
        for i, (region, tier) in enumerate([("EU", 1), ("EU", 2), ("US", 1), ("US", 2), ("AU", 1)])
    ]
    sync(every)
    result = sync([every[0]], partition={"region": ["EU", "US"], "tier": 1})
    assert result.counts.deleted == 1
    assert sync.ids() == {0, 1, 3, 4}


def test_records_without_a_parent_belong_to_no_partition(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, partition_by=["account"], max_delete_percent=100)
    sync([{"id": 1, "account": None}, {"id": 2, "account": None}, {"id": 3, "account": 1}], scope="full")
    assert sync([{"id": 1, "account": None}]).counts.deleted == 0
    assert sync.ids() == {1, 2, 3}


def test_a_parted_baseline_that_has_become_empty(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, partition_by=["region"], max_delete_percent=100, allow_empty=True)
    sync(rows(1), scope="full")
    assert sync([], scope="full").counts.deleted == 1
    assert sync([]).counts.deleted == 0
    assert sync(rows(2)).counts.created == 1
    assert sync.ids() == {2}


def test_an_incomplete_partition_deletes_nothing(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    sync(rows(1, 2))
    result = sync(rows(1), partition={"region": "EU"}, expected_rows=2)
    assert (result.complete, result.counts.deleted) == (False, 0)


def test_a_large_partition_is_guarded_by_itself(tmp_path: Path) -> None:
    sync = Syncing(tmp_path)
    sync(rows(*range(150)) + rows(*range(1000, 3000), region="US"))
    # 20 of 2,150 are less than 10 %, 20 of 150 are not.
    result = sync(
        rows(*range(130)) + rows(*range(1000, 3000), region="US"), partition={"region": ["EU", "US"]}
    )
    assert (result.status, result.counts.deletes_held) == ("held", 20)
    assert result.held_reason == (
        "20 deletions are 13.3 % of the 150 records of the partition region=EU, and max_delete_percent is 10"
    )


def test_updates_and_creates_of_a_large_partition_are_guarded_by_themselves(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, partition={"region": ["EU", "US"]})
    us = rows(*range(1000, 3000), region="US")
    sync(rows(*range(150)) + us)
    # 30 of 2,150 are 1.4 %, 30 of 150 are 20 %.
    changed = [{**row, "v": "new"} for row in rows(*range(30))] + rows(*range(30, 150)) + us
    result = sync(changed, max_updates_percent=10)
    assert (result.status, result.counts.updated, result.counts.written) == ("held", 30, 0)
    assert result.held_reason == (
        "30 updates are 20.0 % of the 150 records of the partition region=EU, more than max_updates_percent = 10"
    )
    result = sync(rows(*range(180)) + us, max_creates_percent=10, max_updates_percent=10)
    assert (result.status, result.counts.created, result.counts.written) == ("held", 30, 0)
    assert result.held_reason == (
        "30 creates are 20.0 % of the 150 records of the partition region=EU, more than max_creates_percent = 10"
    )
    # Records that leave are counted where they were, and new partitions have no share.
    moved = rows(*range(30), region="US") + rows(*range(30, 150)) + us + rows(*range(5000, 5120), region="AU")
    result = sync(moved, max_creates_percent=10, max_updates_percent=10)
    assert result.held_reason is not None
    assert "30 updates are 20.0 % of the 150 records of the partition region=EU" in result.held_reason
    assert sync(moved, max_creates_percent=10).counts.written == 150


def test_the_share_is_one_of_the_covered_keys(tmp_path: Path) -> None:
    sync = Syncing(tmp_path)
    sync(rows(*range(120)) + rows(*range(1000, 3000), region="US"))
    result = sync(rows(*range(100)), partition={"region": "EU"})
    assert result.counts.deletes_held == 20
    assert "of the 120 records" in (result.held_reason or "")


def test_a_partition_run_keeps_what_is_held_elsewhere(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_deletes=0)
    sync(rows(1, 2) + rows(3, 4, region="US"))
    assert sync(rows(1) + rows(3, region="US")).counts.deletes_held == 2
    # 2 is back; 4 is still held, as this run says nothing of it.
    sync(rows(1, 2), partition={"region": "EU"})
    with sync.workspace() as workspace:
        held = workspace.show("s")[0].held
        assert held is not None
        assert [key["id"] for key in held.sample] == [4]
        # A new deletion joins it.
    assert sync(rows(1), partition={"region": "EU"}).counts.deletes_held == 1
    with sync.workspace() as workspace:
        held = workspace.show("s")[0].held
        assert held is not None
        assert sorted(key["id"] for key in held.sample) == [2, 4]
        assert workspace.approve("s", held.digest).counts.deleted == 2
    assert sync.ids() == {1, 3}


def test_partitions_are_signed_under_the_signing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", "0123456789abcdef0123456789abcdef")
    sync = Syncing(tmp_path, max_delete_percent=100)
    sync(rows(1, 2) + rows(3, region="US"), partition_by=["region"], scope="full")
    assert sync(rows(1), partition={"region": "EU"}).counts.deleted == 1
    assert sync(rows(1), partition={"region": "EU"}).counts.deleted == 0
    assert sync.ids() == {1, 3}


def test_rebuilding_keeps_partitions_working(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    sync(rows(1, 2) + rows(3, region="US"), partition_by=["region"], scope="full")
    sync(rows(4), partition={"region": "EU"}, max_deletes=0)
    with sync.workspace() as workspace:
        workspace.rebuild("s")
    assert sync(rows(1), partition={"region": "EU"}).counts.deleted == 2
    assert sync.ids() == {1, 3}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scope": "partition"}, "needs partition"),
        ({"scope": "full", "partition": {"region": "EU"}}, "the scope can't be full"),
        ({"partitions": ["EU"]}, "partition_by does not say"),
        ({"partition": {"region": "EU"}, "exclude": ["region"]}, "would go unnoticed"),
        ({"partition": {"planet": "Mars"}}, "has no field planet"),
        ({"partition": {"n": "many"}}, "holds values of the type integer"),
        ({"scope": "incremental", "full_every": "24h"}, "can be asked for all"),
        ({"full_every": "often"}, "must look like"),
        ({"delete_after_misses": 255}, "254 or less"),
        ({"deleted_when": "1=1; drop table t"}, "deleted_when can't be"),
        ({"deleted_when": "n = 'many'"}, "which holds int64 values"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    sync = Syncing(tmp_path)
    sync(rows(1, 2, n=1))
    with pytest.raises(ConfigurationError, match=sentence):
        sync(rows(1, n=1), **options)
    assert sync.ids() == {1, 2}


# Incremental


def test_incremental_deletes_nothing_and_asks_from_the_cursor_on(tmp_path: Path) -> None:
    asked: list[Any] = []
    table = rows(1, 2, at=10) + rows(3, at=20)

    def source(request: Any) -> Rows:
        asked.append((str(request.scope), request.cursor))
        return [row for row in table if request.cursor is None or row["at"] >= request.cursor]

    sync = Syncing(tmp_path, scope="incremental", cursor="at")
    assert sync(source).counts.created == 3
    del table[0]
    table.append({"id": 4, "region": "EU", "v": "x", "at": 30})
    result = sync(source)
    assert (result.scope, result.counts.records_read, result.counts.created) == ("incremental", 2, 1)
    sync(source)
    assert asked == [("incremental", None), ("incremental", 20), ("incremental", 30)]
    assert sync.ids() == {1, 2, 3, 4}


def test_cursors_of_times_come_back_as_times(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    asked: list[Any] = []

    def source(request: Any) -> Rows:
        asked.append(request.cursor)
        return [{"id": 1, "at": moment}, {"id": 2, "at": None}]

    sync = Syncing(tmp_path, scope="incremental", cursor="at")
    sync(source)
    sync(source)
    assert asked == [None, moment]


def test_a_reading_with_unreadable_records_leaves_the_cursor(tmp_path: Path) -> None:
    asked: list[Any] = []
    answer: list[Any] = rows(1, at=1)

    def source(request: Any) -> Rows:
        asked.append(request.cursor)
        return answer

    sync = Syncing(tmp_path, scope="incremental", cursor="at")
    sync(source)
    answer[:] = [*rows(2, at=5), "no record"]
    sync(source)
    sync(source)
    assert asked == [None, 1, 1]


def test_a_full_run_among_incremental_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(*range(20), at=1)

    def source(request: Any) -> Rows:
        return table if request.scope == "full" else []

    sync = Syncing(tmp_path, scope="incremental", cursor="at", full_every="24h")
    assert sync(source).scope == "full"
    table.pop()
    assert sync(source).scope == "incremental"
    now = datetime.now(UTC) + timedelta(hours=25)
    monkeypatch.setattr("rundiff.database.embedded.EmbeddedDatabase.now", lambda _: now)
    result = sync(source)
    assert (result.scope, result.counts.deleted) == ("full", 1)
    assert sync(source).scope == "incremental"


def test_incremental_runs_leave_what_is_held(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_deletes=0)
    sync(rows(1, 2, 3))
    sync(rows(1))
    sync(rows(2), scope="incremental")
    with sync.workspace() as workspace:
        assert workspace.approve("s").counts.deleted == 1
    assert sync.ids() == {1, 2}


# Marked deletions


@pytest.mark.parametrize("scope", ["full", "incremental", "partition"])
def test_marked_records_are_deleted_in_every_scope(tmp_path: Path, scope: str) -> None:
    options = {"partition": {"region": "EU"}} if scope == "partition" else {"scope": scope}
    sync = Syncing(
        tmp_path, deleted_when="gone is not null", max_delete_percent=100, on_dropped_field="update"
    )
    sync([*rows(1, 2, 3), {"id": 4, "region": "EU", "v": "x", "gone": "2024"}])
    assert sync.ids() == {1, 2, 3}
    result = sync([*rows(1, 2), *rows(3, gone="2024-01-01")], **options)
    assert (result.counts.deleted, result.counts.updated, result.counts.unchanged) == (1, 0, 2)
    assert sync.ids() == {1, 2}
    # It was deleted already.
    result = sync([*rows(1, 2), *rows(3, gone="2024-01-01")], **options)
    assert (result.counts.deleted, result.counts.created) == (0, 0)
    # It is back.
    assert sync([*rows(1, 2), *rows(3)], **options).counts.created == 1


def test_a_mark_in_a_field_that_is_not_compared(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, deleted_when="_sdc_deleted_at is not null")
    sync(rows(1, 2, _sdc_deleted_at=None))
    result = sync([*rows(1, _sdc_deleted_at=None), *rows(2, _sdc_deleted_at="2024")])
    assert (result.counts.deleted, result.counts.unchanged) == (1, 1)
    assert sync.ids() == {1}


def test_marked_deletions_are_guarded_and_survive_incremental_runs(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, deleted_when="gone", max_deletes=0, scope="incremental")
    sync(rows(1, 2, 3, gone=False))
    assert sync(rows(1, gone=True)).status == "held"
    assert sync(rows(2, gone=True)).counts.deletes_held == 1
    with sync.workspace() as workspace:
        held = workspace.show("s")[0].held
        assert held is not None
        assert held.count == 2
        assert workspace.approve("s", held.digest).counts.deleted == 2
    assert sync.ids() == {3}


def test_the_winner_of_a_conflict_says_whether_a_record_is_deleted(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, deleted_when="gone", on_conflict="max:version")
    versions = [
        {"id": 1, "version": 2, "gone": True},
        {"id": 1, "version": 1, "gone": False},
        {"id": 2, "version": 1, "gone": True},
        {"id": 2, "version": 2, "gone": False},
    ]
    assert sync(versions).counts.created == 1
    assert sync.ids() == {2}


# Grace


def test_a_key_is_deleted_after_misses_in_a_row(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, delete_after_misses=3)
    sync(rows(*range(10)))
    for _ in range(2):
        assert sync(rows(*range(9))).counts.deleted == 0
    with sync.workspace() as workspace:
        view = workspace.show("s")[1]
        assert view.samples["pending"] == ['key {"id": 9}: missed by 2 of the 3 runs that delete it']
        assert view.pending == 1
    # Reading it in any scope forgives.
    sync(rows(9), scope="incremental")
    for deleted in (0, 0, 1):
        assert sync(rows(*range(9))).counts.deleted == deleted
    assert sync.ids() == set(range(9))


def test_only_runs_that_cover_a_key_miss_it(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, delete_after_misses=2, max_delete_percent=100)
    sync(rows(1, 2) + rows(3, region="US"))
    sync(rows(1), partition={"region": "EU"})
    sync(rows(1), partition={"region": "EU"}, expected_rows=7)
    sync(rows(3, region="US"), partition={"region": "US"})
    assert sync.ids() == {1, 2, 3}
    assert sync(rows(1), partition={"region": "EU"}).counts.deleted == 1
    assert sync.ids() == {1, 3}


def test_an_empty_extract_is_no_miss(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, delete_after_misses=2, max_delete_percent=100)
    sync(rows(1, 2))
    result = sync([])
    assert result.counts.deletes_held == 0
    assert any("no further miss" in sentence for sentence in result.warnings)
    assert sync(rows(1)).counts.deleted == 0
    assert sync(rows(1)).counts.deleted == 1


# Proofs and guards


def test_without_its_sentinel_a_reading_proves_nothing(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, sentinel={"id": "0"}, max_delete_percent=100)
    assert sync(rows(0, 1, 2)).complete
    result = sync(rows(1))
    assert (result.complete, result.counts.deleted) == (False, 0)
    assert any("the sentinel record id=0 was not read" in sentence for sentence in result.warnings)
    assert sync(rows(0, 1)).counts.deleted == 1


def test_records_that_come_without_a_key_stand_against_deletions(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100)
    keyless = {"id": None, "v": 1}
    assert sync([*rows(0, 1, 2), keyless]).complete
    lost = sync([*rows(0, 1), keyless, keyless])
    assert (lost.complete, lost.counts.deleted) == (False, 0)
    reason = (
        "2 records had no valid key, more than the 1 of the last complete run; --max-invalid-keys 2 would let"
    )
    assert any(reason in sentence for sentence in lost.warnings)
    # They stay, and so does the doubt, until somebody says that there are so many.
    assert sync([*rows(0, 1), keyless, keyless]).counts.deleted == 0
    assert sync([*rows(0, 1), keyless, keyless], max_invalid_keys=2).counts.deleted == 1
    assert sync.ids() == {0, 1}


def test_no_record_without_a_key_stands_beside_deletions_where_none_may(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_delete_percent=100, max_invalid_keys=0)
    keyless = {"id": None, "v": 1}
    first = sync([*rows(0, 1, 2), keyless])
    said = "the reading was not complete: 1 record had no valid key, more than max_invalid_keys, which is 0"
    assert (first.complete, first.counts.created, first.warnings[-1]) == (False, 3, said)
    # As many as before: record 2 may be the one without a key now.
    result = sync([*rows(0, 1), keyless])
    assert (result.complete, result.counts.deleted) == (False, 0)
    assert sync(rows(0, 1)).counts.deleted == 1


def test_far_fewer_records_than_usual_hold_the_deletions(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_drop_percent=20, max_delete_percent=100)
    for ids in (range(10), range(10), range(9)):
        assert sync(rows(*ids)).status == "committed"
    result = sync(rows(*range(5)))
    assert result.held_reason == (
        "5 records were read, 50.0 % fewer than the usual 10, and max_drop_percent is 20"
    )
    assert sync.ids() == set(range(9))
    with sync.workspace() as workspace:
        workspace.approve("s")
    # Who approves says that this is how many there are.
    assert sync(rows(*range(4))).counts.deleted == 1


def test_on_guard_hold_run(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_deletes=0, on_guard="hold_run")
    sync(rows(1, 2))
    result = sync(rows(1, 3))
    assert (result.status, result.counts.written) == ("held", 0)
    assert sync.ids() == {1, 2}
    with sync.workspace() as workspace:
        assert workspace.approve("s").counts.written == 2
    assert sync.ids() == {1, 3}


def test_on_guard_fail(tmp_path: Path) -> None:
    sync = Syncing(tmp_path, max_deletes=0, on_guard="fail")
    sync(rows(1, 2))
    with pytest.raises(PolicyViolation, match=r'1 deletion .*; on_guard is fail.* would go: \{"id": 2\}\.'):
        sync(rows(1, 3))
    assert sync.ids() == {1, 2}


def test_an_approval_binds_works_once_and_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = Syncing(tmp_path, max_deletes=0, approval_expires="12h")
    sync(rows(1, 2))
    sync(rows(1))
    with sync.workspace() as workspace:
        held = workspace.show("s")[0].held
        assert held is not None
        assert held.expires_at is not None
        assert timedelta(hours=11) < held.expires_at - datetime.now(UTC) <= timedelta(hours=12)
        now = datetime.now(UTC) + timedelta(hours=13)
        with monkeypatch.context() as later:
            later.setattr("rundiff.database.embedded.EmbeddedDatabase.now", lambda _: now)
            with pytest.raises(StateChanged, match="could be approved until"):
                workspace.approve("s", held.digest)
        with pytest.raises(StateChanged, match="is not what"):
            workspace.approve("s", "0" * 12)
        assert workspace.approve("s", held.digest).counts.deleted == 1
        with pytest.raises(StateChanged, match="nothing is held"):
            workspace.approve("s", held.digest)


def test_duplicates_and_conflicts_have_samples(tmp_path: Path) -> None:
    sync = Syncing(tmp_path)
    first = sync([*rows(1, 1, 2), {"id": 2, "region": "US", "v": "y"}])
    assert (first.counts.duplicates, first.counts.conflicts) == (1, 1)
    again = sync([*rows(1, 1), {"id": 2, "region": "US", "v": "y"}])
    assert (again.counts.duplicates, again.counts.conflicts) == (1, 0)
    with sync.workspace() as workspace:
        samples = workspace.show("s", 1)[1].samples
        assert samples["duplicates"] == ['key {"id": 1}: identical records']
        assert samples["conflicts"] == ['key {"id": 2}: several records with different data']
        assert workspace.show("s", 2)[1].samples["duplicates"] == ['key {"id": 1}: identical records']
