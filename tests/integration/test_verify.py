"""`rundiff verify`: no false alarm on a fresh table, every tampered row by its name, and repairs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.servers.tables import Tampered, flow, open_tampered

import rundiff
from rundiff.cli import main
from rundiff.engine.views import Verification
from rundiff.engine.workspace import Workspace
from rundiff.settings import Storage
from rundiff.testing.batches import every_type

MODES = ("mirror", "soft_delete", "append", "history")
UNKEPT = {
    "postgresql": ("time_ns", "timestamp_ns", "zoned_ns", "duration_ns"),
    "mariadb": ("time_ns", "timestamp_ns", "zoned_ns", "infinity", "nan"),
}
"""Values that a database has no type for; their records are refused."""

Opener = Callable[..., rundiff.Sync]


def people(*numbers: int, name: str = "Ada") -> list[dict[str, Any]]:
    return [{"id": n, "name": f"{name} {n}", "n": n / 2} for n in numbers]


def named(found: Verification, kind: str) -> dict[Any, set[str]]:
    return {one.primary_key["id"]: set(one.expected) for one in found.sample if one.kind == kind}


@pytest.mark.parametrize("mode", MODES)
def test_a_fresh_table_of_every_type_agrees(there: Tampered, mode: str) -> None:
    table = every_type().drop_columns(list(UNKEPT.get(there.kind, ())))
    sync = flow(there, table, mode=mode)
    assert sync.run().counts.written == 2
    found = sync.verify()
    assert (found.records, found.rows, found.agreed, found.unverified) == (2, 2, 2, 0)
    assert (found.differences, found.foreign, list(found.sample), found.warnings) == (0, 0, [], ())


def test_a_changed_cell_of_every_type_is_found(there: Tampered) -> None:
    table = every_type().drop_columns(list(UNKEPT.get(there.kind, ())))
    sync = flow(there, table)
    sync.run()
    names = [name for name in table.schema.names if name not in ("id", "nulls")]
    emptied = ", ".join(f'"{name}" = NULL' for name in names)
    there.ask(f"UPDATE people SET {emptied} WHERE id = 1")
    [drift] = sync.verify(repair=True).sample
    # SQLite has no NaN: what was delivered is null there.
    assert set(drift.expected) == set(names) - ({"nan"} if there.kind == "sqlite" else set())
    assert set(drift.found.values()) == {None}
    again = sync.verify()
    assert (again.agreed, again.differences) == (2, 0)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("sqlite", mode) for mode in MODES),
        ("duckdb", "history"),
        ("postgresql", "soft_delete"),
        ("postgresql", "append"),
        ("mariadb", "mirror"),
        ("mariadb", "append"),
    ],
)
def test_tampered_rows_are_named_and_repaired(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, mode: str
) -> None:
    there = open_tampered(kind, request, tmp_path)
    flow(there, people(1, 2, 3, 4, 5), mode=mode).run()
    flow(there, people(1, 3, 4, 5, 6) + people(2, name="Eve"), mode=mode).run()
    current = {"append": '"_rundiff_run" = 2', "history": "is_current"}.get(mode, "1 = 1")
    there.ask(
        f"UPDATE people SET name = 'Mallory' WHERE id = 2 AND {current}",
        "UPDATE people SET n = NULL WHERE id = 3",
        "DELETE FROM people WHERE id = 5",
        "INSERT INTO people (id, name) VALUES (77, 'Trent')"
        if mode != "history"
        else "INSERT INTO people (id, name, is_current) VALUES (77, 'Trent', true)",
    )
    found = flow(there, [], mode=mode).verify()
    assert (named(found, "drifted"), named(found, "missing")) == ({2: {"name"}, 3: {"n"}}, {5: set()})
    assert (named(found, "foreign"), found.agreed) == ({77: set()}, 3)
    [eve] = [one for one in found.sample if one.primary_key["id"] == 2]
    assert (eve.expected, eve.found) == ({"name": "Eve 2"}, {"name": "Mallory"})

    repaired = flow(there, [], mode=mode).verify(repair=True)
    assert repaired.repair is not None
    assert (repaired.repair.kind, repaired.repair.counts.updated, repaired.repair.counts.written) == (
        "repair",
        3,
        3,
    )
    after = flow(there, [], mode=mode).verify()
    assert (after.differences, after.agreed, after.foreign) == (0, 6, 1)
    last = flow(there, people(1, 3, 4, 5, 6) + people(2, name="Eve"), mode=mode).run()
    assert (last.counts.unchanged, last.counts.written) == (6, 0)


def test_soft_deleted_rows_are_missing_only_if_they_should_live(sqlite: Tampered) -> None:
    flow(sqlite, people(1, 2, 3), mode="soft_delete").run()
    flow(sqlite, people(1, 2), mode="soft_delete", max_deletes=9).run()
    sqlite.ask("UPDATE people SET deleted_at = '2024-01-01' WHERE id = 2")
    found = flow(sqlite, [], mode="soft_delete").verify(repair=True)
    assert (named(found, "missing"), found.foreign, found.agreed) == ({2: set()}, 0, 1)
    assert sqlite.ask("SELECT id FROM people WHERE deleted_at IS NULL ORDER BY id") == [(1,), (2,)]


def test_keys_that_no_type_reads_are_found_by_their_spelling(sqlite: Tampered) -> None:
    rows = [{"id": "a", "v": 1}, {"id": 1, "v": 2}, {"id": 2.5, "v": 3}]
    flow(sqlite, rows).run()
    assert (flow(sqlite, rows).verify().agreed, flow(sqlite, rows).verify().foreign) == (3, 0)
    sqlite.ask("UPDATE people SET v = 9 WHERE id = 'a'", "DELETE FROM people WHERE id = 1")
    sqlite.ask("INSERT INTO people VALUES ('z', 0)")
    found = flow(sqlite, rows).verify()
    assert (named(found, "drifted"), named(found, "missing")) == ({"a": {"v"}}, {1: set()})
    assert named(found, "foreign") == {"z": set()}


def test_several_rows_of_a_key_are_told(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    there = open_tampered("duckdb", request, tmp_path)
    flow(there, people(1, 2)).run()
    there.ask("INSERT INTO people SELECT * FROM people WHERE id = 1")
    found = flow(there, []).verify(repair=True)
    assert (named(found, "repeated"), found.agreed, found.repair) == ({1: set()}, 1, None)


def test_a_table_that_was_emptied_under_its_watermark(sqlite: Tampered, capsys: Any) -> None:
    flow(sqlite, people(*range(1, 31))).run()
    sqlite.ask("DELETE FROM people")
    found = flow(sqlite, []).verify(limit=3)
    assert (found.missing, len(found.sample)) == (30, 3)
    assert "watermark says that run 1 was delivered: it was emptied" in found.warnings[0]
    # A limit on updates holds a repair like any run, until it is approved.
    held = flow(sqlite, [], max_updates_percent=50).verify(repair=True).repair
    assert held is not None
    assert (held.status, held.held_reason) == (
        "held",
        "30 updates are 100.0 % of the 30 records, more than max_updates_percent = 50",
    )
    assert flow(sqlite, []).verify().missing == 30
    with pytest.raises(rundiff.StateChanged, match="a whole run is held"):
        flow(sqlite, []).verify(repair=True)
    assert flow(sqlite, []).approve().counts.written == 30
    assert flow(sqlite, []).verify().agreed == 30


def test_a_dropped_table_is_lost_not_empty(sqlite: Tampered) -> None:
    flow(sqlite, people(1)).run()
    sqlite.ask("DROP TABLE people")
    with pytest.raises(rundiff.DestinationLost, match="--full-refresh"):
        flow(sqlite, []).verify()


def test_a_lost_column_is_drift_in_it(sqlite: Tampered) -> None:
    flow(sqlite, people(1, 2)).run()
    sqlite.ask("ALTER TABLE people DROP COLUMN n")
    found = flow(sqlite, []).verify(repair=True)
    assert named(found, "drifted") == {1: {"n"}, 2: {"n"}}
    assert sqlite.ask("SELECT n FROM people ORDER BY id") == [(0.5,), (1.0,)]


def test_assumed_rows_are_confirmed_or_written_by_the_next_run(sqlite: Tampered) -> None:
    sqlite.ask(
        "CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT, n REAL)",
        "INSERT INTO people VALUES (1, 'Ada 1', 0.5), (2, 'Bob', 1.0)",
    )
    first = flow(sqlite, people(1, 2, 3), on_existing="keep").run()
    assert first.counts.created == 1
    found = flow(sqlite, []).verify()
    assert (found.agreed, found.drifted, found.confirmed, found.assumed) == (2, 1, 1, 1)
    # What was delivered is not known, for nothing was: the fields can't be told.
    assert named(found, "drifted") == {2: set()}
    repaired = flow(sqlite, []).verify(repair=True)
    assert (repaired.unrepaired, repaired.repair, repaired.confirmed) == (1, None, 0)
    assert flow(sqlite, people(1, 2, 3)).run().counts.updated == 1
    assert sqlite.ask("SELECT name FROM people WHERE id = 2") == [("Ada 2",)]
    after = flow(sqlite, []).verify()
    assert (after.agreed, after.assumed) == (3, 0)


def test_rebaselined_rows_are_assumed_until_verified(sqlite: Tampered, home: Path) -> None:
    flow(sqlite, people(1, 2, 3)).run()
    for path in (home / "signatures").rglob("*.arrow"):
        path.unlink()
    sqlite.ask("UPDATE people SET name = 'Eve' WHERE id = 2")
    flow(sqlite, people(1, 2, 3), on_lost_baseline="rebaseline").run()
    found = flow(sqlite, []).verify()
    assert (found.confirmed, found.assumed, named(found, "drifted")) == (2, 1, {2: set()})
    assert flow(sqlite, []).verify().confirmed == 0


def test_columns_of_other_types_do_not_drift(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id TEXT PRIMARY KEY, name BLOB, n TEXT, day DATETIME)")
    table = pa.table(
        {
            "id": [1, 2],
            "name": ["a", "b"],
            "n": [1.5, None],
            "day": pa.array(["2024-02-29", None]).cast(pa.date32()),
        }
    )
    flow(sqlite, table).run()
    assert flow(sqlite, []).verify().agreed == 2


def test_excluded_fields_are_not_compared(sqlite: Tampered) -> None:
    flow(sqlite, [{"id": 1, "updated_at": "x"}]).run()
    sqlite.ask("UPDATE people SET updated_at = 'y'")
    assert flow(sqlite, []).verify().agreed == 1


def test_destinations_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    sync = rundiff.Sync(people(1), "id", name="people", destination=str(tmp_path / "changes.jsonl"))
    sync.run()
    with pytest.raises(rundiff.ConfigurationError, match="can't be read back"):
        sync.verify()


def test_a_sync_without_a_baseline_has_nothing_to_compare(sqlite: Tampered) -> None:
    sync = flow(sqlite, people(1))
    with pytest.raises(rundiff.ConfigurationError, match="there is no sync people"):
        sync.verify()
    sync.run()
    sync.reset()
    with pytest.raises(rundiff.ConfigurationError, match="has no baseline yet"):
        sync.verify()


def test_another_destination_is_refused(sqlite: Tampered, tmp_path: Path) -> None:
    flow(sqlite, people(1)).run()
    other = rundiff.Sync([], "id", name="people", destination=f"sqlite:///{tmp_path}/other.db", into="people")
    with pytest.raises(rundiff.SyncMismatch, match="delivers to"):
        other.verify()


def test_the_command(sqlite: Tampered, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,name\n1,Ada\n2,Grace\n")
    assert main(["sync", str(path), "--key", "id", "--to", sqlite.url, "--into", "people", "--quiet"]) == 0
    assert main(["verify", "people", "--quiet"]) == 0
    sqlite.ask("UPDATE people SET name = 'Eve' WHERE id = 2", "INSERT INTO people VALUES (3, 'Trent')")
    capsys.readouterr()
    assert main(["verify", str(path)]) == 4
    shown = capsys.readouterr().out
    assert 'name: "Grace" → "Eve"' in shown
    assert "rundiff verify people --repair" in shown
    assert main(["verify", "--json", "--repair"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["drifted"], told["foreign"], told["repair"]["kind"], told["repair"]["updated"]) == (
        1,
        1,
        "repair",
        1,
    )
    assert told["sample"] == [
        {
            "difference": "drifted",
            "primary_key": {"id": 2},
            "expected": {"name": "Grace"},
            "found": {"name": "Eve"},
        },
        {"difference": "foreign", "primary_key": {"id": 3}, "expected": {}, "found": {}},
    ]
    # Rows of others are no difference.
    assert main(["verify", "people", "--json"]) == 0
    assert main(["verify", "nobody"]) == 2


def test_a_verification_that_fails_has_the_keys_of_one_that_does_not(
    sqlite: Tampered, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow(sqlite, people(1)).run()
    assert main(["verify", "people", "--json"]) == 0
    good = json.loads(capsys.readouterr().out)
    shutil.rmtree(home / "signatures")
    assert main(["verify", "people", "--json"]) == 1
    said = capsys.readouterr()
    failed = json.loads(said.out)
    assert list(failed) == list(good)
    assert {name: type(value) for name, value in failed.items() if name != "error"} == {
        name: type(value) for name, value in good.items() if name != "error"
    }
    assert failed["error"] in said.err
    assert (failed["sync"], failed["records"]) == ("people", 0)


def test_rows_are_judged_by_the_rule_of_the_baseline(sqlite: Tampered) -> None:
    rule: Any = {"normalize": {"name": "casefold", "n": lambda values: pc.round(values, 1)}}
    took = timedelta(seconds=1)  # can't be read back: every row is looked at closely
    rows = [
        {"id": 1, "name": "ADA", "n": 1.04, "took": took},
        {"id": 2, "name": "Bob", "n": 2.0, "took": took},
    ]
    flow(sqlite, rows, **rule).run()
    sqlite.ask(
        "UPDATE people SET name = 'ada', n = 1.01 WHERE id = 1", "UPDATE people SET n = 2.5 WHERE id = 2"
    )
    found = flow(sqlite, rows, **rule).verify()
    assert (named(found, "drifted"), found.agreed) == ({2: {"n"}}, 1)
    # Without the function rows are compared as they stand there.
    with Workspace(Storage(home=os.environ["RUNDIFF_HOME"])) as workspace:
        assert set(named(workspace.verify("people"), "drifted")) == {1, 2}


def test_a_new_field_that_was_only_adopted_is_no_drift(sqlite: Tampered) -> None:
    flow(sqlite, [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]).run()
    rows = [{"id": 1, "name": "Ada", "city": "x"}, {"id": 2, "name": "Bo", "city": "y"}]
    assert flow(sqlite, rows, on_new_field="adopt").run().counts.updated == 1
    assert flow(sqlite, rows).verify().agreed == 2


def test_a_rotated_signing_key(sqlite: Tampered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", "00" * 32)
    flow(sqlite, people(1, 2)).run()
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY", "11" * 32)
    monkeypatch.setenv("RUNDIFF_SIGNING_KEY_FORMER", "00" * 32)
    sqlite.ask("UPDATE people SET name = 'Eve' WHERE id = 2")
    assert named(flow(sqlite, []).verify(), "drifted") == {2: {"name"}}
    assert flow(sqlite, people(1, 2)).run().counts.written == 0
    repaired = flow(sqlite, []).verify(repair=True)
    assert (named(repaired, "drifted"), flow(sqlite, []).verify().agreed) == ({2: {"name"}}, 2)


def test_a_run_that_was_cut_off_is_finished_first(sqlite: Tampered) -> None:
    flow(sqlite, people(1)).run()
    sqlite.ask(
        "CREATE TRIGGER full BEFORE INSERT ON people WHEN NEW.id = 3 BEGIN SELECT RAISE(FAIL, 'no'); END"
    )
    with pytest.raises(rundiff.DestinationError):
        flow(sqlite, people(1, 2, 3, 4), max_failures=0, batch_size=1).run()
    with pytest.raises(rundiff.StateChanged, match="was cut off while delivering"):
        flow(sqlite, []).verify()
    sqlite.ask("DROP TRIGGER full", "UPDATE people SET name = 'Eve' WHERE id = 1")
    found = flow(sqlite, []).verify(repair=True)
    assert (named(found, "drifted"), found.repair and found.repair.run) == ({1: {"name"}}, 3)
    assert flow(sqlite, people(1, 2, 3, 4)).run().counts.unchanged == 3


def test_state_on_servers(postgresql_url: str, valkey_url: str, sqlite: Tampered) -> None:
    kept: Any = {"database": postgresql_url, "signatures": valkey_url}
    sqlite.ask("CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT, n REAL)")
    sqlite.ask("INSERT INTO people VALUES (1, 'Ada 1', 0.5)")
    assert flow(sqlite, people(1, 2), **kept).adopt().counts.unchanged == 1
    assert flow(sqlite, people(1, 2), **kept).run().counts.created == 1
    sqlite.ask("UPDATE people SET name = 'Eve'")
    found = flow(sqlite, [], **kept).verify(repair=True)
    # What was adopted was never delivered, so it is not known what stood there.
    assert (named(found, "drifted"), found.unrepaired) == ({1: set(), 2: {"name"}}, 1)
    assert flow(sqlite, people(1, 2), **kept).run().counts.updated == 1
    assert flow(sqlite, [], **kept).verify().agreed == 2


def test_rows_that_cant_be_compared_are_no_success(
    sqlite: Tampered, capsys: pytest.CaptureFixture[str]
) -> None:
    """A repair of what was never delivered leaves entries of which nobody knows what should stand there."""
    sqlite.ask(
        "CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT, n REAL)",
        "INSERT INTO people VALUES (1, 'Ada 1', 0.5), (2, 'Bob', 1.0)",
    )
    flow(sqlite, people(1, 2), on_existing="keep").run()
    assert main(["verify", "people", "--repair", "--quiet"]) == 4
    capsys.readouterr()
    assert main(["verify", "people"]) == 4
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 row can't be compared: what was delivered is not known, so they count as uncertain" in shown
    assert main(["verify", "people", "--quiet"]) == 4
    assert flow(sqlite, people(1, 2)).run().counts.updated == 1
    assert main(["verify", "people", "--quiet"]) == 0
