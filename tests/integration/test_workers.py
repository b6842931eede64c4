"""Several workers on one run: the same result as one process, whatever is handed in when and by whom."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.servers.teams import Row, Team, shared, team

import rundiff
from rundiff.cli import main
from rundiff.database.postgresql import PostgresqlDatabase

__all__ = ["shared", "team"]


def newest(records: list[Row]) -> Row:
    return max(records, key=lambda record: record["updated_at"])


rows = st.fixed_dictionaries(
    {
        "id": st.one_of(st.integers(0, 5), st.sampled_from([0, 1, None])),
        "v": st.sampled_from([None, "a", "b", ""]),
        "rank": st.one_of(st.none(), st.integers(0, 2)),
        "updated_at": st.integers(0, 3),
    },
    optional={"extra": st.none()},
)
batches = st.lists(st.lists(rows, max_size=5), min_size=1, max_size=4)
rules = st.sampled_from(
    ["last", "first", "max:rank", "min:rank", "max:updated_at", "min:updated_at", "quarantine", newest]
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[list[Row]], list[tuple[int, int]]]]:
    """Runs: each with its batches, and who hands which one in, in which order, some of them repeatedly."""
    history = []
    for parts in draw(st.lists(batches, min_size=1, max_size=3)):
        each = list(range(len(parts)))
        turns = draw(st.permutations(each)) + draw(st.lists(st.sampled_from(each), max_size=2))
        order = draw(st.permutations(turns))
        history.append((parts, [(part, draw(st.integers(0, 1))) for part in order]))
    return history


def outcome(team: Team, result: rundiff.RunResult) -> dict[str, Any]:
    with team.workspace() as workspace:
        schema = [(field.name, field.type, field.role) for field in workspace.schema("orders")]
        [view] = workspace.syncs()
        held = None if view.held is None else (view.held.count, view.held.digest, view.held.reason)
        quarantined = view.quarantined
    told = {**result.as_json(), "seconds": 0, "warnings": len(result.warnings)}
    return {"result": told, "schema": schema, "held": held, "quarantined": quarantined, "table": team.table()}


def compare(one: Team, many: Team, history: list[Any]) -> None:
    for number, (parts, turns) in enumerate(history):
        ids = [f"part-{index}" for index in range(len(parts))]
        whole = [row for part in parts for row in part]
        expected = outcome(one, one.sync(whole))
        workers = [many.join(f"day-{number}", machine, batches=ids) for machine in (0, 1)]
        first = set()
        for part, worker in turns:
            fresh = workers[worker].add(iter(parts[part]), batch=ids[part])
            assert fresh == (part not in first)
            first.add(part)
        result = workers[number % 2].seal()
        assert outcome(many, result) == expected
        for worker in workers:
            assert worker.seal() == worker.status().result
            worker.close()
        assert many.objects() == []
    with one.workspace() as single, many.workspace() as several:
        ids = [each.syncs()[0].sync_id for each in (single, several)]
    assert ids[0] != ids[1]
    assert many.log() == one.log()


def check(history: list[Any], rule: Any, shared: Callable[[], dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = {"on_conflict": rule, "on_invalid_key": "quarantine", "on_dropped_field": "update"}
        one = Team(Path(folder) / "one", {}, **options)
        compare(one, Team(Path(folder) / "many", shared(), **options), history)


@settings(max_examples=30)
@given(history=histories(), rule=rules)
def test_workers_give_the_result_of_one_process(history: list[Any], rule: Any) -> None:
    check(history, rule, dict)


@settings(max_examples=5)
@given(history=histories(), rule=rules)
def test_workers_on_servers_give_the_result_of_one_process(
    shared: Callable[[], dict[str, str]], history: list[Any], rule: Any
) -> None:
    check(history, rule, shared)


def orders(*ids: int, v: str = "a") -> list[Row]:
    return [{"id": each, "v": v} for each in ids]


def hundred(**changes: str) -> list[Row]:
    return [{"id": each, "v": changes.get(f"r{each}", "a")} for each in range(100)]


def test_many_threads_and_who_comes_last_seals(team: Team) -> None:
    ids = [f"part-{index}" for index in range(6)]
    results: list[rundiff.RunResult] = []

    def work(number: int) -> None:
        with team.join("r", number, batches=ids, worker=f"worker {number}") as run:
            for index in range(number, 6, 3):
                run.add(orders(index * 10, index * 10 + 1), batch=ids[index])
            run.done()
            if not run.status().missing:
                results.append(run.seal())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results
    assert {result.run for result in results} == {1}
    assert results[0].counts.created == 12
    assert len(team.table()) == 12


def test_a_missing_batch_is_told_and_nothing_is_deleted(team: Team) -> None:
    team.sync(hundred())
    before = team.table()
    with team.join("r", batches=["a", "b"]) as run, team.join("r", 1) as other:
        assert run.add(hundred()[:50], batch="a")
        with pytest.raises(
            rundiff.StateChanged, match=r"1 of its batches is missing: b\. .* Nothing was written"
        ):
            run.seal()
        assert team.table() == before
        assert run.status().missing == other.status().missing == ("b",)
        assert other.add(hundred()[50:98], batch="b")
        result = other.seal()
    assert (result.counts.deleted, result.counts.unchanged, result.complete) == (2, 98, True)


def test_a_number_of_batches_may_be_announced(team: Team) -> None:
    team.sync(hundred())
    with team.join("r", expected=2) as run:
        run.add(hundred()[:50], batch="a")
        run.add(hundred()[:50], batch="a")
        with pytest.raises(rundiff.StateChanged, match=r"1 of its batches is missing\. Hand"):
            run.seal()
        run.add(hundred()[50:99], batch="b")
        with pytest.raises(
            rundiff.ConfigurationError, match="has its 2 expected batches already; 'c' would be"
        ):
            run.add(orders(1), batch="c")
        assert run.seal().counts.deleted == 1


def test_a_run_that_announced_nothing_deletes_nothing(team: Team) -> None:
    team.sync(hundred())
    with team.join("r", worker="one") as run, team.join("r", 1, worker="two") as other:
        run.add(hundred(r3="b")[:50], batch="a")
        with pytest.raises(rundiff.StateChanged, match="two has not reported done"):
            run.seal()
        other.done()
        result = run.seal()
    assert (result.counts.updated, result.counts.deleted, result.complete) == (1, 0, False)
    assert "batches= or expected= would prove" in result.warnings[-1]
    assert len(team.table()) == 100


def test_a_stated_count_of_rows_is_a_proof_too(team: Team) -> None:
    team.sync(hundred())
    with team.join("r", expected_rows=99) as run:
        run.add(hundred()[:99], batch="a")
        assert run.seal().counts.deleted == 1


def test_it_keeps_other_runs_out_until_it_is_given_up(team: Team) -> None:
    with team.join("r", expected=2) as run:
        run.add(orders(1), batch="a")
        busy = pytest.raises(rundiff.SyncBusy, match=r"run r of several workers since 20.*Z, until")
        with busy:
            team.sync(orders(1), 1)
        with team.workspace() as workspace:
            with busy:
                workspace.reset("orders")
            assert "run r of several workers" in str(workspace.syncs()[0].running)
        assert len(team.objects()) == 1
        run.discard()
        assert team.objects() == []
        with pytest.raises(rundiff.Fenced, match="run r was given up"):
            run.add(orders(2), batch="b")
        run.close()
    assert team.sync(orders(1), 1).counts.created == 1


def test_one_that_is_silent_for_too_long_is_overtaken(team: Team) -> None:
    run = team.join("r", expected=2, idle_seconds=1)
    run.add(orders(1, 2), batch="a")
    assert team.sync(orders(1), 1, wait=True).counts.created == 1
    for act in (lambda: run.add(orders(2), batch="b"), run.seal):
        with pytest.raises(rundiff.Fenced, match="another run has taken the sync over since run r began"):
            act()
    run.close()
    with team.join("r", expected=1) as anew:
        assert anew.add(orders(1, 2), batch="a")
        assert anew.seal().counts.created == 1
    assert [row[0] for row in team.table()] == [1, 2]
    assert team.objects() == []


def test_who_comes_after_the_seal_is_refused_but_its_batch_may_be_in(team: Team) -> None:
    with team.join("r") as run:
        run.add(orders(1), batch="a")
        sealed = run.seal()
    with team.join("r", 1) as late:
        assert late.seal().as_json() == {**sealed.as_json(), "seconds": late.seal().seconds}
        assert not late.add(orders(1, 2, 3), batch="a")
        with pytest.raises(rundiff.Fenced, match="run r was sealed before batch b came"):
            late.add(orders(2), batch="b")
        with pytest.raises(rundiff.StateChanged, match="was sealed; it can't be given up"):
            late.discard()
    assert [row[0] for row in team.table()] == [1]


def test_who_is_still_reading_at_the_seal_is_refused(team: Team) -> None:
    with team.join("r", batches=["a"]) as slow, team.join("r", 1) as other:

        def reading() -> Iterator[Row]:
            yield {"id": 1, "v": "old"}
            assert other.add(orders(1, v="new"), batch="a")
            assert other.seal().counts.created == 1

        with pytest.raises(rundiff.Fenced, match="sealed, given up or overtaken while batch a was read"):
            slow.add(reading(), batch="a")
    assert team.table() == [(1, "new")]
    assert team.objects() == []


def test_of_two_that_read_one_batch_the_first_counts(team: Team) -> None:
    with team.join("r", batches=["a"]) as slow, team.join("r", 1) as other:

        def reading() -> Iterator[Row]:
            yield {"id": 1, "v": "second"}
            assert other.add(orders(1, v="first"), batch="a")

        assert not slow.add(reading(), batch="a")
        assert len(team.objects()) == 1
        slow.seal()
    assert team.table() == [(1, "first")]


def test_a_batch_that_breaks_off_leaves_nothing(team: Team) -> None:
    def broken() -> Iterator[Row]:
        yield {"id": 1, "v": "a"}
        raise OSError("the source is gone")

    with team.join("r", batches=["a"]) as run:
        with pytest.raises(OSError, match="the source is gone"):
            run.add(broken(), batch="a")
        with pytest.raises(rundiff.KeyFieldMissing):
            run.add([{"v": "a"}], batch="a")
        assert run.status().missing == ("a",)
        assert run.add(orders(1, 2), batch="a")
        assert run.seal().counts.created == 2


def test_workers_must_agree(team: Team) -> None:
    with team.join("r", batches=["a", "b"], on_conflict="first"):
        for other, told in (
            ({"on_conflict": "last"}, "another on_conflict"),
            ({"on_conflict": "first", "exclude": ["v"]}, "another exclude"),
            ({"on_conflict": "first", "batches": ["a"]}, "other batches"),
            ({"on_conflict": "first", "primary_key": "v"}, "another primary_key"),
        ):
            with pytest.raises(rundiff.ConfigurationError, match=told):
                team.join("r", 1, **other)
        with pytest.raises(rundiff.SyncBusy, match="run r of several workers"):
            team.join("another", 1, wait=False)


def test_a_guard_holds_and_a_person_approves(team: Team) -> None:
    team.sync(hundred())
    with team.join("r", expected=2) as run:
        run.add(hundred()[:20], batch="a")
        run.add(hundred()[20:50], batch="b")
        result = run.seal()
        assert (result.status, result.counts.deletes_held) == ("held", 50)
        assert run.seal() == run.status().result
    with team.workspace() as workspace:
        assert workspace.approve("orders").counts.deleted == 50


def test_a_seal_that_failed_may_be_done_again(team: Team) -> None:
    team.sync(hundred())
    with team.join("r", expected=1) as run:
        run.add([], batch="a")
        (team.folder / "d.db").rename(team.folder / "away.db")
        with pytest.raises(rundiff.DestinationError):
            run.seal()
        (team.folder / "d.db").unlink(missing_ok=True)
        (team.folder / "away.db").rename(team.folder / "d.db")
        assert run.seal().status == "held"
    assert len(team.table()) == 100


def test_batches_are_tables_too(team: Team) -> None:
    with team.join("r", batches=["a", "b", "c"]) as run:
        run.add(pa.table({"id": [1], "v": ["a"]}), batch="a")
        run.add(polars.DataFrame({"id": [2], "v": ["b"]}), batch="b")
        run.add(pa.table({"id": [3], "v": ["c"], "n": [1.5]}).to_reader(), batch="c")
        assert run.seal().counts.created == 3
    assert team.table() == [(1, "a", None), (2, "b", None), (3, "c", 1.5)]


def test_types_of_batches_that_differ_are_widened(tmp_path: Path) -> None:
    team = Team(tmp_path, {})
    with team.join("r", batches=["a", "b"]) as run:
        run.add([{"id": 1, "n": 1, "t": "x"}], batch="a")
        run.add([{"id": 2, "n": 1.5, "t": 2}], batch="b")
        run.seal()
    with team.workspace() as workspace:
        types = {field.name: field.type for field in workspace.schema("orders")}
    assert types == {"id": "integer", "n": "double", "t": "mixed"}


def test_what_the_store_lost_can_be_handed_in_again(tmp_path: Path) -> None:
    team = Team(tmp_path, {})
    with team.join("r", batches=["a", "b"]) as run:
        run.add(orders(1), batch="a")
        run.add(orders(2), batch="b")
        for path in (tmp_path / "home" / "signatures").rglob("share-*"):
            path.unlink()
        with pytest.raises(rundiff.StateChanged, match="has lost what batches a, b left; hand them in again"):
            run.seal()
        assert run.add(orders(1), batch="a")
        assert run.add(orders(2), batch="b")
        assert run.seal().counts.created == 2


def test_a_damaged_share_is_no_batch(tmp_path: Path) -> None:
    team = Team(tmp_path, {})
    with team.join("r", batches=["a"]) as run:
        run.add(orders(1), batch="a")
        [path] = (tmp_path / "home" / "signatures").rglob("share-*")
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(rundiff.StorageError, match="what batch a of run r left is lost or damaged"):
            run.seal()
        run.discard()
    assert team.table() == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run": ""}, "the name of run must be a text"),
        ({"batches": ["a", "a"]}, "names a batch twice"),
        ({"batches": ["a\0"]}, "the name of a batch must be"),
        ({"expected": 0}, "expected must be"),
        ({"idle_seconds": 0}, "idle_seconds must be"),
        ({"cursor": "v"}, "cursor needs one process to read it"),
        ({"sentinel": {"id": 1}}, "sentinel needs one process to read it"),
        ({"no_such_option": 1}, "There is no option"),
    ],
)
def test_what_can_not_be_is_refused_at_once(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(rundiff.ConfigurationError, match=told):
        Team(tmp_path, {}).join(**{"run": "r", **options})


def test_a_batch_is_no_file(tmp_path: Path) -> None:
    run = Team(tmp_path, {}).join("r")
    with run, pytest.raises(rundiff.ConfigurationError, match="a batch is rows, or a table"):
        run.add(str(tmp_path / "orders.csv"), batch="a")
    with pytest.raises(rundiff.RundiffError, match="this worker has left run r"):
        run.add(orders(1), batch="a")


def test_an_older_home_gets_the_tables(tmp_path: Path) -> None:
    team = Team(tmp_path, {})
    team.sync(orders(1))
    with contextlib.closing(sqlite3.connect(tmp_path / "home" / "rundiff.sqlite")) as database:
        database.executescript("DROP TABLE joined_runs; DROP TABLE shares; PRAGMA user_version = 1")
    with team.join("r", expected=1) as run:
        run.add(orders(1, 2), batch="a")
        assert run.seal().counts.created == 1


def test_an_older_postgresql_is_migrated(postgresql_url: str, tmp_path: Path) -> None:
    PostgresqlDatabase(postgresql_url).close()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("DROP TABLE rundiff_joined_runs, rundiff_shares")
        connection.execute("UPDATE rundiff_schema_version SET version_num = '0001'")
    team = Team(tmp_path, {"database": postgresql_url, "signatures": postgresql_url})
    with pytest.raises(rundiff.StorageError, match="run `rundiff migrate`"):
        team.sync(orders(1))
    assert main(["migrate", "--database", postgresql_url]) == 0
    with team.join("r", expected=1) as run:
        run.add(orders(1, 2), batch="a")
        assert run.seal().counts.created == 2
