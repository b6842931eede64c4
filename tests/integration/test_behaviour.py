"""What the options of design section 2 do, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.sqlitefiles import opened

import rundiff
from rundiff.api import Sync

Row = dict[str, Any]


def people(count: int, start: int = 0) -> list[Row]:
    return [{"id": i, "v": f"v{i}"} for i in range(start, start + count)]


@pytest.fixture
def crm(tmp_path: Path) -> Path:
    return tmp_path / "crm.db"


def sync(rows: Any, crm: Path, **options: Any) -> Sync:
    return Sync(rows, "id", name="s", destination=f"sqlite:///{crm}", into="people", **options)


def held(crm: Path) -> list[tuple[Any, ...]]:
    with opened(crm) as connection:
        return connection.execute("SELECT id, v FROM people ORDER BY id").fetchall()


def test_deletions_are_held_and_approved_once(crm: Path) -> None:
    sync(people(200), crm).run()
    changed = [{"id": 0, "v": "new"}, *people(99, 1), {"id": 500, "v": "x"}]
    result = sync(changed, crm).run()
    assert (result.status, result.counts.deletes_held, result.counts.deleted) == ("held", 100, 0)
    assert (result.counts.created, result.counts.updated, result.counts.written) == (1, 1, 2)
    assert len(held(crm)) == 201
    digest = json.loads(digest_of(crm))
    with pytest.raises(rundiff.StateChanged, match="what is held now is not"):
        sync(changed, crm).approve("0" * 64)
    approved = sync(changed, crm).approve(digest)
    assert (approved.kind, approved.counts.deleted, approved.counts.deletes_held) == ("approve", 100, 0)
    assert held(crm) == sorted((row["id"], row["v"]) for row in changed)
    with pytest.raises(rundiff.StateChanged, match="nothing is held"):
        sync(changed, crm).approve(digest)
    again = sync(changed, crm).run()
    assert (again.counts.unchanged, again.counts.deleted, again.status) == (101, 0, "committed")


def digest_of(crm: Path) -> str:
    import os

    from rundiff.engine.workspace import Workspace
    from rundiff.settings import Storage

    with Workspace(Storage(home=os.environ["RUNDIFF_HOME"])) as workspace:
        view, _ = workspace.show("s")
    assert view.held is not None
    return json.dumps(view.held.digest)


def test_a_held_key_that_is_read_again_leaves_the_set(crm: Path) -> None:
    sync(people(200), crm).run()
    assert sync(people(100), crm).run().counts.deletes_held == 100
    # Incomplete by its stated count: it deletes nothing, but what it read is no longer held.
    result = sync(people(150), crm, expected_rows=999).run()
    assert (result.complete, result.counts.unchanged) == (False, 150)
    approved = sync(people(150), crm).approve()
    assert approved.counts.deleted == 50
    assert len(held(crm)) == 150


def test_a_failed_run_leaves_the_held_set_as_it_is(crm: Path) -> None:
    sync(people(200), crm).run()
    sync(people(100), crm).run()

    def broken() -> Any:
        yield {"id": 150, "v": "v150"}
        raise OSError("the line went dead")

    with pytest.raises(rundiff.RundiffError) as caught:
        sync(broken(), crm).run()
    assert caught.value.result is not None
    assert caught.value.result.status == "failed"
    assert sync(people(100), crm).approve().counts.deleted == 100


def test_discarding_drops_the_set_and_the_next_run_finds_it_again(crm: Path) -> None:
    sync(people(200), crm).run()
    sync(people(100), crm).run()
    assert sync(None, crm).discard().count == 100
    with pytest.raises(rundiff.StateChanged):
        sync(None, crm).approve()
    assert sync(people(100), crm).run().counts.deletes_held == 100


def test_an_empty_extract_is_held(crm: Path) -> None:
    sync(people(3), crm).run()
    assert sync([], crm).run().counts.deletes_held == 3
    assert sync([], crm, allow_empty=True).run().counts.deleted == 3
    assert held(crm) == []


def test_a_whole_run_is_held_and_delivered_once(crm: Path) -> None:
    sync(people(10), crm).run()
    rows = [{"id": i, "v": "all new"} for i in range(10)]
    result = sync(rows, crm, max_updates_percent=50).run()
    assert (result.status, result.counts.updated, result.counts.written) == ("held", 10, 0)
    assert held(crm)[0] == (0, "v0")
    assert sync(rows, crm).approve().counts.updated == 10
    assert held(crm)[0] == (0, "all new")
    assert sync(rows, crm, max_updates_percent=50).run().counts.unchanged == 10


def test_a_held_run_is_not_approved_once_the_baseline_moved(crm: Path) -> None:
    sync(people(10), crm).run()
    sync([{"id": i, "v": "all new"} for i in range(10)], crm, max_updates_percent=50).run()
    sync(people(11), crm).run()
    with pytest.raises(rundiff.StateChanged):
        sync(None, crm).approve()


@pytest.mark.parametrize(("policy", "created", "first"), [("overwrite", 3, "v0"), ("keep", 2, "theirs")])
def test_rows_that_were_there_before(crm: Path, policy: Any, created: int, first: str) -> None:
    with opened(crm) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT, theirs TEXT)")
        connection.execute("INSERT INTO people VALUES (0, 'theirs', 'kept'), (77, 'foreign', 'kept')")
    result = sync(people(3), crm, on_existing=policy).run()
    assert (result.counts.created, any("already" in w for w in result.warnings)) == (created, True)
    assert held(crm) == [(0, first), (1, "v1"), (2, "v2"), (77, "foreign")]
    assert sync(people(3), crm).run().counts.unchanged == 3
    with opened(crm) as connection:
        assert connection.execute("SELECT theirs FROM people WHERE id = 0").fetchone() == ("kept",)


def test_existing_rows_can_fail_the_run(crm: Path) -> None:
    with opened(crm) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT)")
        connection.execute("INSERT INTO people VALUES (0, 'theirs')")
    with pytest.raises(rundiff.PolicyViolation, match="on_existing is fail"):
        sync(people(3), crm, on_existing="fail").run()
    assert held(crm) == [(0, "theirs")]


def test_a_second_sync_on_a_table_is_refused_unless_both_share_it(crm: Path) -> None:
    url = f"sqlite:///{crm}"
    shared = {"primary_key": "id", "destination": url, "into": "people"}
    rundiff.sync(people(2), name="a", **shared)
    with pytest.raises(rundiff.SyncMismatch, match="which sync a writes already"):
        rundiff.sync(people(2, 10), name="b", **shared)
    rundiff.sync(people(2), name="a", shared_table=True, **shared)
    rundiff.sync(people(2, 10), name="b", shared_table=True, **shared)
    rundiff.sync(people(1), name="a", shared_table=True, **shared)
    assert [row[0] for row in held(crm)] == [0, 10, 11]


def test_another_key_or_destination_is_refused_and_reset_is_the_way_out(crm: Path) -> None:
    sync(people(2), crm).run()
    other = Sync(people(2), ["id", "v"], name="s", destination=f"sqlite:///{crm}", into="people")
    with pytest.raises(rundiff.SyncMismatch, match=r"--name .* or `rundiff reset s`") as caught:
        other.run()
    assert caught.value.exit_code == 2
    with pytest.raises(rundiff.SyncMismatch, match="delivers to"):
        Sync(people(2), "id", name="s", destination=f"sqlite:///{crm}", into="others").run()
    sync(None, crm).reset()
    result = Sync(people(2), "id", name="s", destination=f"sqlite:///{crm}", into="others").run()
    assert (result.run, result.baseline) == (2, "first")


def test_quarantine_keeps_the_old_entry_and_tries_again(crm: Path) -> None:
    with opened(crm) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'bad'))")
    rows = people(100)
    sync(rows, crm).run()
    rows[3], rows[50], rows[99] = {"id": 3, "v": "bad"}, {"id": 50, "v": "good"}, {"id": 99, "v": "bad"}
    for _ in range(2):
        result = sync(rows, crm).run()
        assert result.counts.failed == 2
    assert dict(held(crm))[50] == "good"
    rows[3] = {"id": 3, "v": "mended"}
    result = sync(rows, crm).run()
    assert (result.counts.updated, result.counts.written, result.counts.failed) == (2, 1, 1)
    assert dict(held(crm))[3] == "mended"


@pytest.mark.parametrize(
    ("strategy", "wins"),
    [
        ("last", "b"),
        ("first", "old"),
        ("max:n", "a"),
        ("min:n", "old"),
        (lambda records: next(r for r in records if r["v"] == "a"), "a"),
    ],
)
def test_conflicts_with_an_unchanged_record_among_them(strategy: Any, wins: str, crm: Path) -> None:
    old = {"id": 1, "v": "old", "n": 1}
    sync([old], crm).run()
    rows = [old, {"id": 1, "v": "a", "n": 3}, {"id": 1, "v": "b", "n": 2}, {"id": 1, "v": "b", "n": 2}]
    result = sync(rows, crm, on_conflict=strategy).run()
    assert (result.counts.conflicts, result.counts.duplicates) == (1, 1)
    assert held(crm) == [(1, wins)]
    assert result.counts.unchanged == (wins == "old")


def test_conflicts_can_fail_or_be_set_aside(crm: Path) -> None:
    rows = [{"id": 1, "v": "a"}, {"id": 1, "v": "b"}, {"id": 2, "v": "c"}]
    with pytest.raises(rundiff.PolicyViolation, match="on_conflict is fail"):
        sync(rows, crm, on_conflict="fail").run()
    result = sync(rows, crm, on_conflict="quarantine").run()
    assert (result.counts.created, result.counts.conflicts, result.counts.failed) == (1, 1, 1)
    assert held(crm) == [(2, "c")]


@pytest.mark.parametrize(("policy", "failed"), [("skip", 0), ("quarantine", 1)])
def test_records_without_a_valid_key(policy: Any, failed: int, crm: Path) -> None:
    rows = [{"id": None, "v": "lost"}, {"id": 1, "v": "a"}]
    result = sync(rows, crm, on_invalid_key=policy).run()
    assert (result.counts.invalid_keys, result.counts.failed, result.counts.created) == (1, failed, 1)
    with pytest.raises(rundiff.PolicyViolation, match="on_invalid_key is fail"):
        sync(rows, crm, on_invalid_key="fail").run()


def test_more_invalid_keys_than_before_make_a_reading_incomplete(crm: Path) -> None:
    sync([{"id": None, "v": "x"}, *people(3)], crm).run()
    result = sync([{"id": None, "v": "x"}, {"id": None, "v": "y"}, *people(2)], crm).run()
    assert (result.complete, result.counts.deleted) == (False, 0)
    result = sync([{"id": None, "v": "x"}, *people(2)], crm).run()
    assert (result.complete, result.counts.deleted) == (True, 1)


def test_fields_that_come_and_go(crm: Path) -> None:
    sync(people(2), crm).run()
    with_new = [{**row, "new": None} for row in people(2)]
    assert sync(with_new, crm).run().counts.unchanged == 2
    with_new[0]["new"] = "x"
    with pytest.raises(rundiff.PolicyViolation, match="on_new_field is fail"):
        sync(with_new, crm, on_new_field="fail").run()
    result = sync(with_new, crm).run()
    assert (result.counts.updated, result.warnings) == (1, ("new field: new",))
    with pytest.raises(rundiff.PolicyViolation, match="no longer has the field new"):
        sync(people(2), crm).run()
    assert sync(people(2), crm, on_dropped_field="update").run().counts.updated == 1


def test_excluded_fields_are_delivered_but_not_compared(crm: Path) -> None:
    rows = [{"id": 1, "v": "a", "Updated_At": 1, "_dlt_id": "x"}]
    sync(rows, crm).run()
    again = [{"id": 1, "v": "a", "Updated_At": 2, "_dlt_id": "y"}]
    assert sync(again, crm).run().counts.unchanged == 1
    # What differs in them alone is not sent when they are compared from now on, unless it is asked for.
    assert sync(again, crm, exclude=[]).run().counts.unchanged == 1
    assert sync(again, crm, exclude=[], full_refresh=True).run().counts.updated == 1
    with opened(crm) as connection:
        assert connection.execute('SELECT "Updated_At" FROM people').fetchall() == [(2,)]


def test_a_lost_baseline_is_never_taken_for_empty(crm: Path, home: Path) -> None:
    import shutil

    sync(people(5), crm).run()
    shutil.rmtree(home / "signatures")
    with pytest.raises(rundiff.BaselineLost, match=r"Use `rundiff rebuild s`"):
        sync(people(3), crm).run()
    assert len(held(crm)) == 5
    from rundiff.engine.workspace import Workspace
    from rundiff.settings import Storage

    with Workspace(Storage(home=str(home))) as workspace:
        assert workspace.rebuild("s") == 5
    result = sync(people(4), crm).run()
    assert (result.counts.unchanged, result.counts.deleted, result.baseline) == (4, 1, "found")


@pytest.mark.parametrize(("policy", "written"), [("rebaseline", 0), ("resend", 3)])
def test_policies_for_a_lost_home_delete_nothing(policy: Any, written: int, crm: Path, home: Path) -> None:
    import shutil

    sync(people(5), crm).run()
    shutil.rmtree(home)
    with pytest.raises(rundiff.BaselineLost, match="does not know"):
        sync(people(3), crm).run()
    result = sync(people(3), crm, on_lost_baseline=policy).run()
    assert (result.baseline, result.counts.written, len(held(crm))) == ("lost", written, 5)
    result = sync(people(3), crm).run()
    assert (result.baseline, result.counts.unchanged) == ("found", 3)


def test_a_lost_destination_fails_before_anything_is_written(crm: Path) -> None:
    import shutil

    sync(people(5), crm).run()
    shutil.copy(crm, crm.with_suffix(".old"))
    sync([*people(4), {"id": 9, "v": "new"}], crm).run()
    shutil.copy(crm.with_suffix(".old"), crm)
    rows = [*people(4), {"id": 9, "v": "new"}]
    with pytest.raises(rundiff.DestinationLost, match="--full-refresh"):
        sync(rows, crm).run()
    sync(rows, crm, full_refresh=True).run()
    # The row that was deleted before the restore is deleted again.
    assert held(crm) == [(i, f"v{i}") for i in range(4)] + [(9, "new")]
    crm.unlink()
    with pytest.raises(rundiff.DestinationLost):
        sync(rows, crm).run()
    sync(rows, crm, full_refresh=True).run()
    assert len(held(crm)) == 5


def test_rollback_follows_a_restored_destination(crm: Path, home: Path) -> None:
    import shutil

    from rundiff.engine.workspace import Workspace
    from rundiff.settings import Storage

    sync(people(5), crm).run()
    shutil.copy(crm, crm.with_suffix(".old"))
    sync(people(4), crm).run()
    with Workspace(Storage(home=str(home))) as workspace:
        with pytest.raises(rundiff.StateChanged, match="not at its state after run 1"):
            workspace.rollback("s", 1)
        shutil.copy(crm.with_suffix(".old"), crm)
        workspace.rollback("s", 1)
    result = sync(people(4), crm).run()
    assert (result.run, result.counts.unchanged, result.counts.deleted) == (3, 4, 1)
    assert len(held(crm)) == 4


def test_a_plan_changes_nothing_and_is_applied_once(crm: Path, home: Path, tmp_path: Path) -> None:
    sync(people(5), crm).run()
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file() and "sqlite-" not in p.name}
    out = tmp_path / "plan"
    plan = sync([*people(4), {"id": 9, "v": "new"}], crm).plan(out)
    assert (plan.changes, plan.result.status, plan.result.run) == (2, "planned", None)
    assert before == {p: p.read_bytes() for p in home.rglob("*") if p.is_file() and "sqlite-" not in p.name}
    result = sync(None, crm).apply(out)
    assert (result.run, result.counts.created, result.counts.deleted) == (2, 1, 1)
    assert [row[0] for row in held(crm)] == [0, 1, 2, 3, 9]
    with pytest.raises(rundiff.StateChanged, match="has moved since"):
        sync(None, crm).apply(out)


def test_spilled_runs_decide_like_those_in_memory(
    crm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rundiff.engine import finding
    from rundiff.engine.spool import Spool

    monkeypatch.setattr(finding, "Spool", lambda folder: Spool(folder, budget=2_000))
    rows = [{"id": i % 400, "v": f"v{i}"} for i in range(1000)]
    result = sync(rows, crm).run()
    assert (result.counts.created, result.counts.conflicts) == (400, 400)
    wanted = {i % 400: f"v{i}" for i in range(1000)}
    assert dict(held(crm)) == wanted
    assert sync([{"id": k, "v": v} for k, v in wanted.items()], crm).run().counts.unchanged == 400


def test_a_signing_key_leaves_no_trace(crm: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "correct horse battery staple"  # noqa: S105 -- a made-up one, to be looked for
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", secret)
    sync(people(3), crm).run()
    assert sync(people(3), crm).run().counts.unchanged == 3
    for path in home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", secret + "r")
    with pytest.raises(rundiff.ConfigurationError, match="RUNDIFF_SIGNING_KEY") as caught:
        sync(people(3), crm).run()
    assert secret not in str(caught.value)


def test_history_tells_each_change_of_a_record(crm: Path) -> None:
    for value in ("a", "b", None):
        rows = [{"id": 2, "v": "x"}] + ([] if value is None else [{"id": 1, "v": value}])
        sync(rows, crm).run()
    told = [
        (e.run, e.change.action, e.change.before, e.change.after)
        for e in sync(None, crm).history({"id": "1"})
    ]
    a, b = {"id": 1, "v": "a"}, {"id": 1, "v": "b"}
    assert told == [(1, "insert", None, a), (2, "update", a, b), (3, "delete", b, None)]


def fail(_: rundiff.SyncWriteRecord) -> None:
    raise ZeroDivisionError


class TestChanges:
    def test_leaving_early_commits_nothing_and_a_new_run_may_follow(self) -> None:
        iterator = iter(rundiff.changes(people(3), primary_key="id", name="c"))
        next(iterator)
        assert len(list(rundiff.changes(people(3), primary_key="id", name="c"))) == 3
        with pytest.raises(rundiff.RundiffError, match="given up"):
            next(iterator)
        assert list(rundiff.changes(people(3), primary_key="id", name="c")) == []

    def test_raising_commits_nothing(self) -> None:
        with pytest.raises(ZeroDivisionError):
            list(map(fail, rundiff.changes(people(3), primary_key="id", name="c")))
        with pytest.raises(ZeroDivisionError), rundiff.changes(people(3), primary_key="id", name="c"):
            raise ZeroDivisionError
        assert len(list(rundiff.changes(people(3), primary_key="id", name="c"))) == 3

    def test_a_block_that_ends_well_commits(self) -> None:
        with rundiff.changes(people(3), primary_key="id", name="c") as changes:
            assert next(iter(changes)).destination_action == "create"
        assert changes.result is not None
        assert changes.result.status == "committed"
        assert list(rundiff.changes(people(3), primary_key="id", name="c")) == []

    def test_another_thread_is_refused(self) -> None:
        import threading

        outcome: list[type] = []

        def other() -> None:
            try:
                list(rundiff.changes(people(3), primary_key="id", name="c"))
            except rundiff.RundiffError as error:
                outcome.append(type(error))

        with rundiff.changes(people(3), primary_key="id", name="c"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert outcome == [rundiff.SyncBusy]


def test_a_field_that_changed_records_lack_becomes_null(crm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("id,v,n\n1,a,5\n")
    (folder / "b.csv").write_text("id,v,n\n2,b,6\n")
    sync(str(folder / "*.csv"), crm).run()
    (folder / "a.csv").write_text("id,v\n1,a\n")
    assert sync(str(folder / "*.csv"), crm).run().counts.updated == 1
    with opened(crm) as connection:
        assert connection.execute("SELECT id, n FROM people ORDER BY id").fetchall() == [(1, None), (2, 6)]


def test_a_dropped_field_becomes_null_and_is_named(crm: Path) -> None:
    sync([{"id": 1, "v": "a", "n": 5}], crm).run()
    sync([{"id": 1, "v": "a"}], crm, on_dropped_field="update").run()
    with opened(crm) as connection:
        assert connection.execute("SELECT id, v, n FROM people").fetchall() == [(1, "a", None)]
    assert [e.change.changed_fields for e in sync(None, crm).history({"id": 1})] == [None, ("n",)]


def test_each_file_of_a_glob_is_held_to_its_own_last_newline(crm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("id,v\n1,aaa\n2,bbb\n")
    (folder / "b.csv").write_text("id,v\n3,ccc")
    assert sync(str(folder / "*.csv"), crm).run().counts.created == 3
    (folder / "a.csv").write_text("id,v\n1,aaa\n2,b")
    result = sync(str(folder / "*.csv"), crm).run()
    assert (result.complete, result.counts.unreadable, result.counts.deleted) == (False, 1, 0)
    assert held(crm) == [(1, "aaa"), (2, "bbb"), (3, "ccc")]


def test_repeated_deletions_count_neither_for_guards_nor_for_live_records(crm: Path, home: Path) -> None:
    import shutil

    from rundiff.engine.workspace import Workspace
    from rundiff.settings import Storage

    sync(people(150), crm).run()
    shutil.copy(crm, crm.with_suffix(".old"))
    sync(people(136), crm).run()
    sync(people(123), crm).run()
    sync(people(111), crm).run()
    for _ in range(2):
        shutil.copy(crm.with_suffix(".old"), crm)
        result = sync(people(111), crm, full_refresh=True).run()
        assert (result.status, result.counts.deleted) == ("committed", 39)
        assert len(held(crm)) == 111
    with Workspace(Storage(home=str(home))) as workspace:
        assert workspace.syncs()[0].records == 111
    assert sync(people(1), crm).run().counts.deletes_held == 110


def test_a_rollback_beyond_a_reset_is_refused(crm: Path, home: Path) -> None:
    from rundiff.engine.workspace import Workspace
    from rundiff.settings import Storage

    sync(people(2), crm).run()
    sync(None, crm).reset()
    with Workspace(Storage(home=str(home))) as workspace, pytest.raises(rundiff.StateChanged):
        workspace.rollback("s", 1)


def test_a_held_run_with_deletions_is_approved_as_a_whole(crm: Path) -> None:
    sync(people(200), crm).run()
    rows = [{"id": i, "v": "new"} for i in range(100)]
    assert sync(rows, crm, max_updates_percent=10).run().status == "held"
    result = sync(rows, crm).approve()
    assert (result.status, result.counts.updated, result.counts.deleted) == ("committed", 100, 100)
    assert len(held(crm)) == 100


def test_a_lost_database_is_not_taken_for_a_first_run(home: Path, tmp_path: Path) -> None:
    stream = str(tmp_path / "out.jsonl")
    rundiff.sync(people(3), primary_key="id", name="s", destination=stream)
    for path in home.glob("rundiff.sqlite*"):
        path.unlink()
    with pytest.raises(rundiff.BaselineLost, match="database does not know") as caught:
        rundiff.sync(people(3), primary_key="id", name="s", destination=stream)
    assert caught.value.result is not None
    assert caught.value.result.baseline == "lost"
    result = rundiff.sync(
        people(3), primary_key="id", name="s", destination=stream, on_lost_baseline="rebaseline"
    )
    assert (result.baseline, result.counts.written) == ("lost", 0)
    assert rundiff.sync(people(3), primary_key="id", name="s", destination=stream).counts.unchanged == 3


def test_leading_nulls_do_not_spoil_a_type(tmp_path: Path) -> None:
    rows = [{"id": i, "v": None if i < 10_000 else i} for i in range(10_003)]
    rundiff.sync(rows, primary_key="id", name="s", destination=f"duckdb:///{tmp_path}/d.duckdb", into="t")
    import duckdb

    with duckdb.connect(f"{tmp_path}/d.duckdb") as connection:
        assert connection.execute(
            "SELECT typeof(v), max(v) FROM t WHERE v IS NOT NULL GROUP BY 1"
        ).fetchall() == [("BIGINT", 10_002)]


def test_mistaken_types_do_not_stick(crm: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("id,v\n1,a\n2,b\n")
    sync(str(path), crm).run()
    for policy in ("fail", "update"):
        with pytest.raises(rundiff.PolicyViolation, match="types gives v as integer"):
            sync(str(path), crm, types={"v": "integer"}, on_retyped_field=policy).run()
    result = sync(str(path), crm).run()
    assert (result.counts.unreadable, result.counts.unchanged) == (0, 2)
