"""`rundiff adopt`: a first run on a table that exists writes only the difference."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.servers.tables import Tampered, flow

import rundiff
from rundiff.cli import main
from rundiff.engine.adopted import Adopted
from rundiff.testing.batches import every_type

TABLE = (
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(20), price DECIMAL(8,2), born DATE, "
    "seen TIMESTAMP, active BOOLEAN, note VARCHAR(20))"
)
HEAD = "id,name,price,born,seen,active\n"
LINES = {
    1: "1,Ada,1.50,1815-12-10,2024-01-01T10:00:00,true\n",
    2: "2,Grace,20,1906-12-09,2024-01-02T10:00:00.250000,false\n",
    3: "3,Edsger,0.07,,,\n",
    4: "4,Alan,4,1912-06-23,2024-01-04T00:00:00,true\n",
}
ROWS = (
    "INSERT INTO people VALUES (1, 'Ada', 1.5, '1815-12-10', '2024-01-01 10:00:00', true, 'kept'), "
    "(2, 'Grace', 20, '1906-12-09', '2024-01-02 10:00:00.25', false, NULL), (3, 'Edsger', 0.07, NULL, NULL, NULL, NULL)"
)


def written(folder: Path, *numbers: int, **changed: str) -> str:
    path = folder / "people.csv"
    lines = "".join(LINES[n] for n in numbers)
    for old, new in changed.items():
        lines = lines.replace(old, new)
    path.write_text(HEAD + lines)
    return str(path)


def test_rows_are_adopted_in_the_form_that_is_compared(sqlite: Tampered, tmp_path: Path) -> None:
    sqlite.ask(TABLE, ROWS)
    options: dict[str, Any] = {
        "types": {"price": "decimal(8,2)"},
        "normalize": {"name": "trim|casefold", "price": "round(1)"},
    }
    flow(sqlite, written(tmp_path, 1, 2, 3), **options).adopt()
    result = flow(
        sqlite, written(tmp_path, 1, 2, 3, Ada=" ADA ", Edsger="Ed", **{"1.50": "1.52"}), **options
    ).run()
    assert (result.counts.updated, result.counts.unchanged, result.warnings) == (1, 2, ())
    assert [(each[0], each[1]) for each in sqlite.ask("SELECT id, name FROM people ORDER BY id")] == [
        (1, "Ada"),
        (2, "Grace"),
        (3, "Ed"),
    ]


def test_the_next_run_writes_only_the_difference(there: Tampered, tmp_path: Path) -> None:
    seen = "seen DATETIME(6)" if there.kind == "mariadb" else "seen TIMESTAMP"
    there.ask(TABLE.replace("seen TIMESTAMP", seen), ROWS)
    adopted = flow(there, written(tmp_path, 1, 2, 3), types={"price": "decimal(8,2)"}).adopt()
    assert (adopted.kind, adopted.status, adopted.run) == ("adopt", "committed", 1)
    assert (adopted.counts.records_read, adopted.counts.unchanged, adopted.counts.written) == (3, 3, 0)
    same = flow(there, written(tmp_path, 1, 2, 3)).run()
    assert (same.baseline, same.counts.unchanged, same.counts.written) == ("found", 3, 0)
    assert flow(there, []).verify().agreed == 3
    # 2 changes, 3 is not in the source, 4 is new; the column that the source does not have stays.
    then = flow(there, written(tmp_path, 1, 2, 4, Grace="Hopper")).run()
    assert (then.counts.created, then.counts.updated, then.counts.deleted) == (1, 1, 1)
    assert there.ask("SELECT id, name, note FROM people ORDER BY id") == [
        (1, "Ada", "kept"),
        (2, "Hopper", None),
        (4, "Alan", None),
    ]
    assert flow(there, []).verify().agreed == 3


def test_a_table_that_rundiff_made_is_adopted_as_it_is(there: Tampered, home: Path, tmp_path: Path) -> None:
    """The home directory is lost; the table tells what it held, but for types that can't be read back."""
    unread = ("infinity", "nan", "duration", "duration_ns", "interval", "map", "list", "texts")
    table = every_type().drop_columns([*unread, "time_ns", "timestamp_ns", "zoned_ns"])
    flow(there, table).run()
    new = tmp_path / "new"
    adopted = flow(there, table, home=new).adopt()
    assert (adopted.counts.unchanged, adopted.baseline) == (2, "first")
    assert flow(there, table, home=new).run().counts.written == 0
    # The mark of the sync that was lost is gone, and this one's is there.
    assert len(there.ask("SELECT sync_id FROM _rundiff_watermarks")) == 1


def test_deletions_of_adopted_rows_are_guarded(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)")
    sqlite.ask(f"INSERT INTO people VALUES {', '.join(f'({n})' for n in range(200))}")
    rows = [{"id": n} for n in range(150)]
    flow(sqlite, rows).adopt()
    held = flow(sqlite, rows).run()
    assert (held.status, held.counts.deletes_held) == ("held", 50)
    assert flow(sqlite, rows).approve().counts.deleted == 50


def test_a_dry_run_changes_nothing(sqlite: Tampered, home: Path, tmp_path: Path) -> None:
    sqlite.ask(TABLE, ROWS)
    path = written(tmp_path, 1, 2)
    shown = flow(sqlite, path).adopt(dry_run=True)
    assert (shown.status, shown.kind, shown.run, shown.counts.unchanged) == ("planned", "adopt", None, 3)
    assert sqlite.ask("SELECT name FROM sqlite_schema WHERE name LIKE '_rundiff%'") == []
    with pytest.raises(rundiff.ConfigurationError, match="there is no sync people"):
        flow(sqlite, path).verify()
    assert flow(sqlite, path).adopt().run == 1


def test_what_cant_be_read_is_written_by_the_next_run(sqlite: Tampered) -> None:
    sqlite.ask(
        "CREATE TABLE people (id, name TEXT, n)",
        "INSERT INTO people VALUES (1, 'a', 1), (2, 'b', 'abc'), (3, 'c', 3), (3, 'C', 3), ('x', 'd', 4)",
        "INSERT INTO people VALUES (NULL, 'e', 5)",
    )
    rows = [{"id": 1, "name": "a", "n": 1}, {"id": 2, "name": "b", "n": 2}, {"id": 3, "name": "c", "n": 3}]
    adopted = flow(sqlite, rows).adopt()
    assert (adopted.counts.records_read, adopted.counts.unchanged) == (6, 1)
    text = " ".join(adopted.warnings)
    assert "2 rows without a key that the source could have" in text
    assert "values of n that can't be read back; 1 keys with several rows" in text
    assert flow(sqlite, rows).run().counts.updated == 2
    assert sqlite.ask("SELECT id, name, n FROM people WHERE typeof(id) = 'integer' ORDER BY rowid") == [
        (1, "a", 1),
        (2, "b", 2),
        (3, "c", 3),
        (3, "c", 3),
    ]


def test_a_column_that_the_table_lacks(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)", "INSERT INTO people VALUES (1), (2)")
    rows = [{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]
    assert "the table has no column name" in flow(sqlite, rows).adopt().warnings[0]
    assert flow(sqlite, rows).run().counts.updated == 1
    assert sqlite.ask("SELECT id, name FROM people ORDER BY id") == [(1, "Ada"), (2, None)]


def test_modes(sqlite: Tampered) -> None:
    rows = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]
    flow(sqlite, rows, mode="history").run()
    flow(sqlite, [{"id": 1, "v": "A"}], mode="history", max_deletes=9).run()
    flow(sqlite, [], mode="history").reset()
    # Another database would be refused: the mark on the table is of a sync that it does not know.
    assert flow(sqlite, rows, mode="history").adopt().counts.unchanged == 1
    then = flow(sqlite, rows, mode="history").run()
    assert (then.counts.created, then.counts.updated) == (1, 1)
    plain = rundiff.Sync(rows, "id", name="plain", destination=sqlite.url, into="plain", mode="append")
    sqlite.ask("CREATE TABLE plain (id INTEGER, v TEXT)")
    with pytest.raises(rundiff.ConfigurationError, match="_rundiff_action"):
        plain.adopt()


def test_partitions_are_known_at_once(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY, region TEXT)")
    sqlite.ask("INSERT INTO people VALUES (1, 'EU'), (2, 'EU'), (3, 'US')")
    rows = [{"id": 1, "region": "EU"}]
    flow(sqlite, rows, partition={"region": "EU"}).adopt()
    assert flow(sqlite, rows, partition={"region": "EU"}).run().counts.deleted == 1
    assert sqlite.ask("SELECT id FROM people ORDER BY id") == [(1,), (3,)]


def test_refusals(sqlite: Tampered, tmp_path: Path) -> None:
    rows = [{"id": 1}]
    with pytest.raises(rundiff.DestinationError, match='There is no table "people"'):
        flow(sqlite, rows).adopt()
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)", "INSERT INTO people VALUES (1)")
    with pytest.raises(rundiff.SourceError, match="the source has no records"):
        flow(sqlite, []).adopt()
    with pytest.raises(rundiff.KeyFieldMissing, match="no field id"):
        flow(sqlite, [{"number": 1}]).adopt()
    stream = rundiff.Sync(rows, "id", name="stream", destination=str(tmp_path / "changes.jsonl"))
    with pytest.raises(rundiff.ConfigurationError, match="can't be read back"):
        stream.adopt()
    flow(sqlite, rows).adopt()
    for dry_run in (True, False):
        with pytest.raises(rundiff.StateChanged, match="has a baseline already"):
            flow(sqlite, rows).adopt(dry_run=dry_run)


def test_a_table_larger_than_memory_is_adopted_range_by_range(
    sqlite: Tampered, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": n, "v": f"v{n}"} for n in range(3000)]
    flow(sqlite, rows).run()
    flow(sqlite, rows).reset()
    sqlite.ask("UPDATE people SET v = 'other' WHERE id = 7")
    monkeypatch.setattr("rundiff.engine.adopting.Adopted", partial(Adopted, budget=50_000))
    assert flow(sqlite, rows).adopt().counts.unchanged == 3000
    then = flow(sqlite, rows[:-1]).run().counts
    assert (then.unchanged, then.updated, then.deleted) == (2998, 1, 1)


def test_a_table_of_several_syncs_that_nobody_knows_is_not_adopted(sqlite: Tampered, home: Path) -> None:
    rows = [{"id": 1}]
    flow(sqlite, rows, shared_table=True).run()
    rundiff.Sync(
        [{"id": 2}], "id", name="other", destination=sqlite.url, into="people", shared_table=True
    ).run()
    shutil.rmtree(home)
    for dry_run in (True, False):
        with pytest.raises(rundiff.ConfigurationError, match="2 syncs that this database does not know"):
            flow(sqlite, rows).adopt(dry_run=dry_run)
    # Of one alone the rows are this sync's own, from a home that was lost.
    assert flow(sqlite, rows, on_lost_baseline="rebaseline").run().counts.deleted == 0
    shutil.rmtree(home)
    assert flow(sqlite, rows).adopt().counts.unchanged == 2


def test_a_destination_that_was_adopted_and_is_gone_is_lost(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)", "INSERT INTO people VALUES (1)")
    flow(sqlite, [{"id": 1}]).adopt()
    sqlite.ask("DELETE FROM _rundiff_watermarks")
    with pytest.raises(rundiff.DestinationLost, match="no watermark"):
        flow(sqlite, [{"id": 1}]).run()


def test_a_baseline_of_adopted_rows_can_be_made_anew(sqlite: Tampered, home: Path) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)", "INSERT INTO people VALUES (1), (2)")
    rows = [{"id": 1}, {"id": 2}]
    flow(sqlite, rows).adopt()
    for path in (home / "signatures").rglob("*.arrow"):
        path.unlink()
    assert main(["rebuild", "people"]) == 0
    assert flow(sqlite, rows).run().counts.unchanged == 2


def test_the_command(sqlite: Tampered, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sqlite.ask(TABLE, ROWS)
    given = [written(tmp_path, 1, 2, 3), "--key", "id", "--to", sqlite.url, "--into", "people"]
    assert main(["adopt", *given]) == 2
    assert "--from-destination" in capsys.readouterr().err
    assert main(["adopt", *given, "--from-destination", "--dry-run"]) == 0
    assert "planned (adopt)" in capsys.readouterr().out
    assert main(["adopt", *given, "--from-destination", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["run"], told["unchanged"], told["written"]) == ("adopt", 1, 3, 0)
    assert main(["sync", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 3


def test_rows_are_signed_by_the_rule_of_the_sync(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, at TEXT)")
    sqlite.ask("INSERT INTO people VALUES (1, 'ADA', 'x'), (2, 'Bob', 'x')")
    rows = [{"id": 1, "name": "ada", "at": "y"}, {"id": 2, "name": "Rob", "at": "y"}]
    rule: Any = {"normalize": {"name": "casefold"}, "exclude": ["at"]}
    flow(sqlite, rows, **rule).adopt()
    assert flow(sqlite, rows, **rule).run().counts.updated == 1


def test_a_table_of_several_syncs_is_refused(sqlite: Tampered) -> None:
    shared: Any = {"destination": sqlite.url, "into": "people", "shared_table": True}
    ours = rundiff.Sync([{"id": 1}], "id", name="ours", **shared)
    # Declared as shared, it may have rows that others are about to write.
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)", "INSERT INTO people VALUES (1)")
    for dry_run in (True, False):
        with pytest.raises(rundiff.ConfigurationError, match="--shared-table says that other syncs"):
            ours.adopt(dry_run=dry_run)
    theirs = rundiff.Sync([{"id": 2}, {"id": 3}], "id", name="theirs", **shared)
    theirs.run()
    for dry_run in (True, False):
        with pytest.raises(rundiff.ConfigurationError, match="sync theirs delivers to it, too") as refused:
            ours.adopt(dry_run=dry_run)
        assert refused.value.exit_code == 2
    # What the sentence advises leaves the rows of the other sync alone.
    ours.run()
    ours.run()
    assert sqlite.ask("SELECT id FROM people ORDER BY id") == [(1,), (2,), (3,)]


def test_rows_of_later_runs_are_no_table_to_append_to(there: Tampered, tmp_path: Path) -> None:
    """Runs of a new home count from 1: what they write would stand behind what is there."""
    for names in (["a", "b"], ["A", "b"], ["A"]):
        rows = [{"id": n, "name": name} for n, name in enumerate(names)]
        flow(there, rows, mode="append", max_deletes=9).run()
    new: dict[str, Any] = {"mode": "append", "home": tmp_path / "new"}
    for refused in (
        lambda: flow(there, rows, **new).adopt(dry_run=True),
        lambda: flow(there, rows, **new).adopt(),
        lambda: flow(there, rows, on_lost_baseline="rebaseline", **new).plan(),
        lambda: flow(there, rows, on_lost_baseline="rebaseline", **new).run(),
    ):
        with pytest.raises(
            rundiff.ConfigurationError, match=r"holds rows of run 3, and the next run .* - [123]$"
        ):
            refused()
    there.ask('UPDATE people SET "_rundiff_run" = "_rundiff_run" - 3')
    assert flow(there, rows, **new).adopt().counts.unchanged == 1
    assert flow(there, [{"id": 0, "name": "C"}, {"id": 1, "name": "D"}], **new).run().counts.written == 2
    assert flow(there, [], **new).verify().agreed == 2
    # A run that was given up before takes no number away from those that follow a reset.
    flow(there, [], **new).reset()
    assert flow(there, rows, **new).adopt().counts.unchanged == 2


def test_keys_that_a_record_would_not_find_are_left_alone(there: Tampered) -> None:
    """In text `4.0` is another key than 4; in a decimal column it is the same."""
    there.ask("CREATE TABLE people (id VARCHAR(20), v VARCHAR(20))")
    there.ask("INSERT INTO people VALUES ('4.0', 'a'), ('06', 'b'), ('7', 'c'), ('8', 'd')")
    rows = [{"id": n, "v": "x"} for n in (4, 7)]
    adopted = flow(there, rows).adopt()
    assert adopted.counts.unchanged == 2
    assert "2 rows without a key that the source could have, in the spelling" in adopted.warnings[0]
    then = flow(there, rows).run()
    assert (then.counts.created, then.counts.updated, then.counts.deleted) == (1, 1, 1)
    assert sorted(there.ask("SELECT id, v FROM people")) == [
        ("06", "b"),
        ("4", "x"),
        ("4.0", "a"),
        ("7", "x"),
    ]
    there.ask("CREATE TABLE prices (id DECIMAL(8,2) PRIMARY KEY, v VARCHAR(20))")
    there.ask("INSERT INTO prices VALUES (4, 'a'), (5, 'b')")
    priced = rundiff.Sync(rows, "id", name="prices", destination=there.url, into="prices")
    assert priced.adopt().counts.unchanged == 2
    then = priced.run()
    assert (then.counts.created, then.counts.updated, then.counts.deleted) == (1, 1, 1)


def test_an_incremental_scope_deletes_nothing_and_does_not_warn(sqlite: Tampered) -> None:
    sqlite.ask("CREATE TABLE people (id INTEGER PRIMARY KEY)", "INSERT INTO people VALUES (1), (2)")
    assert flow(sqlite, [{"id": 1}], scope="incremental").adopt().warnings == ()
    assert flow(sqlite, [{"id": 1}], scope="incremental").run().counts.deleted == 0


@pytest.mark.parametrize("mode", ["soft_delete", "append", "history"])
def test_a_table_of_another_mode_is_refused(sqlite: Tampered, mode: str) -> None:
    for rows in ([{"id": 1}, {"id": 2}], [{"id": 1}]):
        flow(sqlite, rows, mode=mode, max_deletes=9).run()
    flow(sqlite, rows, mode=mode).reset()
    for dry_run in (True, False):
        with pytest.raises(rundiff.ConfigurationError, match=f"Use --mode {mode}"):
            flow(sqlite, rows).adopt(dry_run=dry_run)
    assert flow(sqlite, rows, mode=mode).adopt().counts.unchanged == 1
